-- wrk script: creates an item with each request.
wrk.method = "POST"
wrk.body = '{"name": "Lamp", "description": "For the desk."}'
wrk.headers["Content-Type"] = "application/json"
