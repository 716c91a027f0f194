"""Pages for people: the hosted checkout. Nothing here is on the path of a gateway call."""
