"""Keys of the WSGI environ through which the server and the web package know of each other."""

ERROR = "predictor.error"  # the server refuses the request with this error
HAS_LEFT = "predictor.has_left"  # a function: whether the client has closed its connection
ADMITTED = "predictor.admitted"  # the head has been checked: the guards need not run again
SLOTS = "predictor.slots"  # the Slots of which the server takes one before it runs the request
