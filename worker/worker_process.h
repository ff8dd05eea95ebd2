/* The worker: puts its floors together, and takes them down in the right order. */
#ifndef USERD_WORKER_WORKER_PROCESS_H
#define USERD_WORKER_WORKER_PROCESS_H

/* Runs until the master says otherwise; returns the exit status for main(). */
int worker_process_run(void);

#endif
