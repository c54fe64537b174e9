"""What campaigns and policies cause: tests with two arms or more, and the value of a policy that was only logged."""
