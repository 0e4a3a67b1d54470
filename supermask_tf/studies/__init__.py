"""Many experiments: study files, running them here or on a cluster, and training records again to
compare.
"""
