"""Where and how one movie is aligned: in this process, in a worker process for each device, or as a job of a queue."""
