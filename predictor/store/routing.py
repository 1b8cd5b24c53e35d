def choose(route, key):
    return route.default
