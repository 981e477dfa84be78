"""/docs: Swagger UI, with files of the package `fastapi-swagger`, so that no CDN is needed.

Each page has a Content-Security-Policy that allows what the page needs, and no more. FastAPI's own
route has no such header, and loads the files from a CDN. See
https://fastapi.tiangolo.com/how-to/custom-docs-ui-assets/.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.responses import FileResponse, HTMLResponse

DOCS_PATH = "/docs"
OAUTH2_REDIRECT_PATH = f"{DOCS_PATH}/oauth2-redirect"
PACKAGE = "fastapi-swagger"
FOLDER = "fastapi_swagger/resources"
"""Where the package has the files. It is not imported, because its own routes are not used."""

SCRIPT = "swagger-ui-bundle.js"
STYLE = "swagger-ui.css"
ICON = "favicon-32x32.png"
CACHE_CONTROL = "public, max-age=31536000, immutable"
"""For the files of Swagger UI, whose paths contain the version of the package (RFC 8246)."""

INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_routes(app: FastAPI) -> None:
    """Add /docs, and the files that the page loads."""
    package = distribution(PACKAGE)
    files_path = f"{DOCS_PATH}/{package.version}"
    folder = Path(str(package.locate_file(FOLDER)))

    async def get_docs(request: Request) -> HTMLResponse:
        """The page with Swagger UI."""
        root_path = request.scope["root_path"]
        page = get_swagger_ui_html(
            openapi_url=f"{root_path}{app.openapi_url}",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root_path}{files_path}/{SCRIPT}",
            swagger_css_url=f"{root_path}{files_path}/{STYLE}",
            swagger_favicon_url=f"{root_path}{files_path}/{ICON}",
            oauth2_redirect_url=f"{root_path}{OAUTH2_REDIRECT_PATH}",
        )
        return _with_content_security_policy(page)

    async def get_file(request: Request) -> FileResponse:
        """A file that the page loads."""
        name = request.url.path.rpartition("/")[2]
        return FileResponse(folder / name, headers={"Cache-Control": CACHE_CONTROL})

    app.add_route(DOCS_PATH, get_docs, include_in_schema=False)
    app.add_route(OAUTH2_REDIRECT_PATH, get_oauth2_redirect, include_in_schema=False)
    # One route for each file: clients cannot read other files of the folder.
    for name in (SCRIPT, STYLE, ICON):
        app.add_route(f"{files_path}/{name}", get_file, include_in_schema=False)


async def get_oauth2_redirect(_: Request) -> HTMLResponse:
    """The page to which an OAuth 2.0 provider returns, if Swagger UI is used to log in."""
    return _with_content_security_policy(get_swagger_ui_oauth2_redirect_html())


def _with_content_security_policy(page: HTMLResponse) -> HTMLResponse:
    """Allow the inline scripts of the page by their hash, so that no other one can run."""
    scripts = INLINE_SCRIPT.findall(bytes(page.body).decode())
    hashes = " ".join(f"'sha256-{_base64_sha256(script)}'" for script in scripts)
    page.headers["Content-Security-Policy"] = (
        "default-src 'none';"
        f" script-src 'self' {hashes};"
        " style-src 'self';"
        " img-src 'self' data:;"  # the style sheet contains icons
        " connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page


def _base64_sha256(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
