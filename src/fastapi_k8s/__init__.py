NAME = __name__.replace("_", "-")  # of the distribution, the command and the service
