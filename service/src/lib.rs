//! What every Towpath server needs: strict configuration, logs, metrics, an admin listener, signals.
