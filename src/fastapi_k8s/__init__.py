NAME = "fastapi-k8s"  # of the distribution, the image and the command
