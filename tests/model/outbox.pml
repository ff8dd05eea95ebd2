/* The way out: rows of the outbox to the log. Rows 0 and 1 belong to one user, 0 was committed before 1.
 * Two instances, each with a relay (worker) and an eventd; F is the number of faults that may happen.
 *
 * As built:           -DW=1 (one row of a user in flight), everything else off
 * Broken on purpose:  -DW=0      several rows of one user in flight
 *                     -DEARLY=1  acknowledged when handed to the producer, not when the broker has it
 *                     -DSKIPL=1  no single relay: rows are claimed with SKIP LOCKED
 *                     -DNORST=1  a relay that forgets that the end of a channel means "unacknowledged"
 *                     -DPARK=2   a row that can never be sent is parked, and the row behind it goes on before that is committed
 *
 * safe: first occurrences in the log are in the order of the commits, and no row goes before it is in the log or parked.
 */
#ifndef W
#define W 1
#endif
#ifndef EARLY
#define EARLY 0
#endif
#ifndef SKIPL
#define SKIPL 0
#endif
#ifndef NORST
#define NORST 0
#endif
#ifndef PARK
#define PARK 1
#endif
#ifndef F
#define F 3
#endif
#define NACK 8
#define NEVER 16 /* the broker will never take it */

bool row[2] = true;
bool seen[2] = false;
bool parked[2] = false;
bool poison[2] = false;
bool oo = false;
bool lost = false;
bool rst[2] = false;
byte f = F;
byte owner = 255;
byte claim[2] = { 255, 255 };
chan ipc[2] = [2] of { byte };
chan ack[2] = [2] of { byte };

inline append(r)
{
    d_step {
        if
        :: (r == 1 && !seen[0] && !parked[0]) -> oo = true
        :: else
        fi;
        seen[r] = true
    }
}

inline drain(c)
{
    byte z;
    do
    :: nempty(c) -> c?z
    :: empty(c) -> break
    od
}

inline crash(m)
{
    drain(ipc[m]);
    drain(ack[m]);
    rst[m] = true
}

proctype eventd(byte m)
{
    byte r;
end:
    do
    :: atomic {
        ipc[m]?r ->
        if
        :: poison[r] -> ack[m]!(r + NEVER)
#if EARLY
        :: !poison[r] -> ack[m]!r;
            if
            :: append(r)
            :: f > 0 -> f--; drain(ipc[m]); rst[m] = true /* acknowledged, and lost before the broker has it */
            fi
#else
        :: !poison[r] -> append(r); ack[m]!r
        :: !poison[r] && f > 0 -> f--; append(r); crash(m) /* in the log, then eventd dies: the report is lost */
        :: !poison[r] && f > 0 -> f--; ack[m]!(r + NACK)   /* delivery error, not in the log */
        :: !poison[r] && f > 0 -> f--; append(r); ack[m]!(r + NACK) /* delivery error, possibly in the log */
#endif
        fi
       }
    :: atomic { f > 0 && (nempty(ipc[m]) || nempty(ack[m])) -> f--; crash(m) }
    od
}

proctype relay(byte m)
{
    byte r;
    bool buf[2] = false;
    bool infl[2] = false;
endA:
    if
    :: SKIPL == 1 -> skip
    :: atomic { SKIPL == 0 && owner == 255 -> owner = m }
    fi;
end:
    do
    :: atomic {
        row[0] && !buf[0] && (SKIPL == 0 || claim[0] == 255) -> buf[0] = true; claim[0] = m;
        if
        :: row[1] && (SKIPL == 0 || claim[1] == 255) -> buf[1] = true; claim[1] = m
        :: else
        fi
       }
    :: atomic {
        row[1] && !buf[1] && (SKIPL == 1 || !row[0] || buf[0]) && (SKIPL == 0 || claim[1] == 255) ->
        buf[1] = true; claim[1] = m
       }
    :: atomic { buf[0] && !infl[0] && nfull(ipc[m]) -> ipc[m]!0; infl[0] = true }
    :: atomic {
        buf[1] && !infl[1] && nfull(ipc[m]) && (W == 0 -> (!buf[0] || infl[0]) : !buf[0]) -> ipc[m]!1; infl[1] = true
       }
    :: atomic {
        ack[m]?r ->
        if
        :: r >= NEVER -> /* moved to the parked table in one transaction; only then the row behind it may go */
            infl[r - NEVER] = false;
#if PARK == 2
            buf[r - NEVER] = false /* broken: forgotten here, not parked yet */
#else
            if
            :: row[r - NEVER] -> parked[r - NEVER] = true; row[r - NEVER] = false
            :: else
            fi;
            buf[r - NEVER] = false
#endif
        :: r >= NACK && r < NEVER -> infl[r - NACK] = false
        :: else ->
            if
            :: !seen[r] -> lost = true
            :: else
            fi;
            infl[r] = false; buf[r] = false; row[r] = false
        fi
       }
    :: atomic { NORST == 0 && rst[m] -> rst[m] = false; infl[0] = false; infl[1] = false } /* end of the channel */
    :: atomic { SKIPL == 0 && owner == m && f > 0 -> f--; owner = 255 } /* the lock is lost: a zombie goes on */
    :: atomic {
        f > 0 -> f--;
        if
        :: owner == m -> owner = 255
        :: else
        fi;
        if
        :: claim[0] == m -> claim[0] = 255
        :: else
        fi;
        if
        :: claim[1] == m -> claim[1] = 255
        :: else
        fi;
        buf[0] = false; buf[1] = false; infl[0] = false; infl[1] = false; drain(ipc[m]); drain(ack[m])
       }
       goto endA
    od
}

/* quiet: everything has been delivered or parked */
proctype mon()
{
    timeout -> assert(!row[0] && !row[1] && (seen[0] || parked[0]) && (seen[1] || parked[1]))
}

init {
    atomic {
        if
        :: poison[0] = true
        :: skip
        fi;
        run eventd(0); run eventd(1); run relay(0); run relay(1); run mon()
    }
}

ltl safe { [] (!oo && !lost) }
