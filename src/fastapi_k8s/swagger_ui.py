"""/docs: Swagger UI, with a Content-Security-Policy that allows what the page needs, and no more.

FastAPI's own route has no such header. See
https://fastapi.tiangolo.com/how-to/custom-docs-ui-assets/.
"""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import Request
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.responses import HTMLResponse

DOCS_PATH = "/docs"
OAUTH2_REDIRECT_PATH = "/docs/oauth2-redirect"
SCRIPT_URL = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"
STYLE_URL = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css"
ICON_URL = "https://fastapi.tiangolo.com/img/favicon.png"

INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


async def get_docs(request: Request) -> HTMLResponse:
    """The page with Swagger UI."""
    root_path = request.scope["root_path"]
    page = get_swagger_ui_html(
        openapi_url=f"{root_path}{request.app.openapi_url}",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=SCRIPT_URL,
        swagger_css_url=STYLE_URL,
        swagger_favicon_url=ICON_URL,
        oauth2_redirect_url=f"{root_path}{OAUTH2_REDIRECT_PATH}",
    )
    return _with_content_security_policy(page)


async def get_oauth2_redirect(_: Request) -> HTMLResponse:
    """The page to which an OAuth 2.0 provider returns, if Swagger UI is used to log in."""
    return _with_content_security_policy(get_swagger_ui_oauth2_redirect_html())


def _with_content_security_policy(page: HTMLResponse) -> HTMLResponse:
    """Allow the inline scripts of the page by their hash, so that no other one can run."""
    scripts = INLINE_SCRIPT.findall(bytes(page.body).decode())
    hashes = " ".join(f"'sha256-{_base64_sha256(script)}'" for script in scripts)
    page.headers["Content-Security-Policy"] = (
        "default-src 'none';"
        f" script-src {SCRIPT_URL} {hashes};"
        f" style-src {STYLE_URL};"
        f" img-src {ICON_URL} data:;"  # the style sheet contains icons
        " connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page


def _base64_sha256(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
