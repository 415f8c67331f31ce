"""eosfm inside other people's harnesses: torchgeo-bench, PANGAEA, TerraTorch. Each is asked for by its own configuration.

None of them is imported here: the classes have the shape their harness asks for, and `eosfm.outward.terratorch` imports
TerraTorch when it registers.
"""
