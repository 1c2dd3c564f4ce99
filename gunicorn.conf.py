"""What `gunicorn wsgi:app` uses in this folder without options. `python -m scripts.serve` also chooses the number of
workers and threads, and prepares an embedded server.
"""

worker_class = "app.gunicorn_worker.BufferedWorker"
threads = 128  # Most of them only wait.
loglevel = "error"  # At other levels gunicorn logs header lines of requests, which may contain a token.
