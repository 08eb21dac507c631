//! Clock, tasks, shutdown, logs, metrics, health, Unix-socket peers, mTLS.
