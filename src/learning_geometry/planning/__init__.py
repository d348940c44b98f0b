"""What a config asks for, what each artifact is made from, and which artifacts on disk are those.

Every artifact has a key: a digest of its rule, its settings, the code that makes it, the files from outside that are
read, and the keys of the artifacts it is made from. The key is stored inside the artifact. What bears another key than
the config and the code ask for is made again; times of files decide nothing.
"""
