/* The relay's floor: from which id on it reads. Transaction 0 writes event 0 of a user, transaction 2 event 2 of the same user
 * (it waits for the lock that 0 holds until it ends), transaction 1 an event of somebody else. An id is drawn when a
 * transaction begins, the row is visible when it commits, and time passes as it likes.
 *
 * As built:           -DFLOOR=1 (the floor moves to a mark when all that ran when the mark was read has ended, as the snapshot of
 *                     a later read shows, and that read brought what they left)
 * Broken on purpose:  -DFLOOR=0  the floor moves to a mark after a time
 *                     -DFLOOR=2  the floor moves to the highest id that was read
 *
 * safe: event 2 is not published before event 0. Rescans from the beginning bring what is left behind, too late for the order.
 */
#ifndef FLOOR
#define FLOOR 1
#endif
#define TRANSACTIONS 3

byte next_id = 1;
byte id[TRANSACTIONS] = 0;      /* 0: not drawn */
bool running[TRANSACTIONS] = false;
bool visible[TRANSACTIONS] = false;
bool published[TRANSACTIONS] = false;
bool oo = false;

proctype transaction(byte t)
{
    /* the lock of the user's row */
    atomic { (t != 2) || visible[0] -> running[t] = true; id[t] = next_id; next_id++ }
    atomic { running[t] = false; visible[t] = true }
}

proctype relay()
{
    byte floor = 0;
    byte mark = 0;
    byte highest = 0;
    bool ran_at_mark[TRANSACTIONS] = false;
    byte t;
    bool is_over;
    bool is_rescan;
end:
    do
    :: atomic {
        published[0] && published[1] && published[2] -> break
       }
    :: atomic { /* one read: one snapshot */
        if
        :: is_rescan = false
        :: is_rescan = true
        fi;
        for (t : 0 .. TRANSACTIONS - 1) {
            if
            :: visible[t] && !published[t] && (is_rescan || id[t] > floor) ->
                if
                :: t == 2 && !published[0] -> oo = true
                :: else
                fi;
                published[t] = true;
                if
                :: id[t] > highest -> highest = id[t]
                :: else
                fi
            :: else
            fi
        };
#if FLOOR == 2
        floor = highest;
#endif
#if FLOOR == 0
        if
        :: floor = mark; mark = highest
        :: skip
        fi;
#endif
#if FLOOR == 1
        is_over = true;
        for (t : 0 .. TRANSACTIONS - 1) {
            if
            :: ran_at_mark[t] && running[t] -> is_over = false
            :: else
            fi
        };
        if
        :: is_over ->
            floor = mark; mark = highest;
            for (t : 0 .. TRANSACTIONS - 1) {
                ran_at_mark[t] = running[t]
            }
        :: else
        fi;
#endif
        t = 0; is_over = false
       }
    od
}

/* quiet: everything has been published */
proctype mon()
{
    timeout -> assert(published[0] && published[1] && published[2])
}

init {
    atomic {
        run transaction(0); run transaction(1); run transaction(2); run relay(); run mon()
    }
}

ltl safe { [] !oo }
