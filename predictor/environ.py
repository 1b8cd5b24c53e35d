"""What the server and the web package agree on: keys of the WSGI environ, and a limit."""

ERROR = "predictor.error"  # the server refuses the request with this error
LEFT = "predictor.left"  # a Future, which is done once the client has closed its connection
ADMITTED = "predictor.admitted"  # the context in which the head was checked, to be used again
# Bytes of the body of a request that needs no slot: many of them may wait for a thread.
MAX_BODY_WITHOUT_SLOT = 64 * 1024
MANAGEMENT = "predictor.management"  # whether the request came to the management API's address
PLACE = "predictor.place"  # the Place that the server takes before it runs the request
