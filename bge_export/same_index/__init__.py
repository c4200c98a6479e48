"""May two artifacts share an index, or an artifact and the vectors that an index was built with?"""
