"""The store: content-addressed blobs and traces, the files placed from them, and the disposable index of both."""
