"""Long runs that look for faults: ``make soak`` and ``make fuzz``."""
