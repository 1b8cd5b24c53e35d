"""A model for the tests of batches: a test decides when each of its calls ends."""

import threading


class Gate:
    """Doubles numbers. Each call waits until ``let`` is released; its arguments are kept."""

    def __init__(self):
        self.batches, self.lanes = [], []
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, items, lanes):
        self.batches.append(list(items))
        self.lanes.append(lanes)
        self.entered.release()
        assert self.let.acquire(timeout=10)
        if "bad" in items:
            raise RuntimeError("a bad item")
        return [item * 2 for item in items]


def results(jobs):
    return [job.future.result(timeout=10) for job in jobs]
