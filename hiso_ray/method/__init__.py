"""The mathematics of scalar-only federated zeroth-order optimisation: torch only, no Ray, no files.

All weights of a model are one flat float32 vector x of d elements, so a direction, a probe and an
update are plain vector operations, streamed in chunks that stay in the processor's cache.
"""
