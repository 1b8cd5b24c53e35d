"""The resources that all models of one process share."""

import threading

from predictor.engine.admission import Slots
from predictor.engine.cpus import available_cpus
from predictor.settings import Settings


class Process:
    """The processors, decoders and admission slots of this process.

    Attributes:
        cpus: number of processors for the models.
        slots: admission slots for requests; explanations have their own.
        decoders: limits how many images are decoded at once, because decoding competes with
            the models for the processors, and a decoded photo is large.
        draining: whether the process is shutting down and should get no more requests.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the limits from the settings and from the machine."""
        self.cpus = settings.torch_threads or available_cpus()
        self.slots = Slots(settings.max_in_flight)
        self.decoders = threading.BoundedSemaphore(available_cpus())
        self.draining = False
