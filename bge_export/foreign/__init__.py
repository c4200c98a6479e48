"""Files that others wrote: what they hold, how a vector is read from them, and how near it is to a checkpoint's."""
