"""A fake of Colab's proxy, which shows a port of the kernel below the cell."""


def serve_kernel_port_as_iframe(port, path="/", width="100%", height="400"):
    print(f"Colab shows port {port}.")
