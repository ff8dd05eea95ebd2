/* What a child finds when it is exec'd by the master: numbers of inherited descriptors and words of
 * its command line. Nothing else is inherited: no other descriptor, and of the environment only
 * what PROCESS_ENVIRONMENT names. */
#ifndef USERD_COMMON_PROCESS_PROTOCOL_H
#define USERD_COMMON_PROCESS_PROTOCOL_H

#define PROCESS_FD_CONTROL    3 /* SOCK_SEQPACKET to the master; its first frame is Start */
#define PROCESS_FD_SCOREBOARD 4 /* memfd, see scoreboard.h */
#define PROCESS_FD_OUTBOX_WAKE \
    5 /* eventfd, workers only: written after COMMIT of an outbox row, read by the relay */

/* What the master understands of its children, as it says in Start: after an upgrade of the package
 * a new child may be started by the old master, to which what it does not know is the end of the
 * channel. */
#define PROCESS_PROTOCOL_RETURNS      1 /* a connection that there is no room for is returned */
#define PROCESS_PROTOCOL_PEER_REQUEST 2 /* and a channel that has ended is asked for */
#define PROCESS_PROTOCOL_OFFENCE      3 /* and it is told of connections that were reset */
#define PROCESS_PROTOCOL              PROCESS_PROTOCOL_OFFENCE /* this release's */

#define PROCESS_ROLE_WORKER  "worker"  /* userd-worker worker */
#define PROCESS_ROLE_MIGRATE "migrate" /* userd-worker migrate up|down|status [N] */
#define PROCESS_ROLE_EVENTD  "eventd"  /* userd-eventd eventd */
#define PROCESS_ROLE_CHECK   "check"   /* either program: answers Start by Verdict [connect] */
#define PROCESS_ROLE_DEAD_LETTERS \
    "dead-letters" /* userd-eventd dead-letters list|show|replay|drop [--all] [ID...] */

/* Passed on when set; a trailing '*' stands for any ending. Neither DB_URL nor anything of Kafka's
 * is among them. */
#ifdef USERD_FAILPOINTS
#define PROCESS_ENVIRONMENT_OF_TESTS "USERD_FAILPOINTS_FILE",
#else
#define PROCESS_ENVIRONMENT_OF_TESTS
#endif
#define PROCESS_ENVIRONMENT                                                          \
    {                                                                                \
        PROCESS_ENVIRONMENT_OF_TESTS "PATH", "TZ", "LANG", "LC_*", "JOURNAL_STREAM", \
            "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", NULL    \
    }

#endif
