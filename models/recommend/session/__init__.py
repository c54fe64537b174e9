"""Models of the scene `session`: what others did next in visits like this one."""
