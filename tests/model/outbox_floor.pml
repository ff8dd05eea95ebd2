/* The relay's floor: from which id on it reads. Transaction 0 writes event 0 of a user, transaction 2 event 2 of the same user
 * (it waits for the lock that 0 holds until it ends), transaction 1 an event of somebody else. A transaction is given its
 * transaction id (xid), then it draws the outbox id, and its row is visible when it commits; between these steps time passes as
 * it likes.
 *
 * What a read knows of others is what PostgreSQL's snapshots say, and no more. Let `completed` be the highest xid of a
 * transaction that has ended. pg_snapshot_xmax() is completed + 1, which a running transaction may have, or even be below the
 * xids of several; pg_snapshot_xmin() is the lowest xid that was running, xmax where none was. The xid that a read is given
 * comes after its snapshot, and above the xids of all that have one by then.
 *
 * As built:           -DFLOOR=1 (an id becomes the mark together with an xid that the read which marks it was given; the floor
 *                     moves to the mark when xmin of a later read's snapshot has reached that xid, and that read brought what
 *                     the others left)
 * Broken on purpose:  -DFLOOR=0  the floor moves to a mark after a time
 *                     -DFLOOR=2  the floor moves to the highest id that was read
 *                     -DFLOOR=3  pg_snapshot_xmax() is taken in the place of an xid of one's own
 *
 * safe: event 2 is not published before event 0. Rescans from the beginning bring what is left behind, too late for the order.
 */
#ifndef FLOOR
#define FLOOR 1
#endif
#define TRANSACTIONS 3

byte next_xid = 1;
byte completed = 0;             /* the highest xid of all that have ended */
byte next_id = 1;
byte xid[TRANSACTIONS] = 0;     /* 0: not given */
byte id[TRANSACTIONS] = 0;      /* 0: not drawn */
bool running[TRANSACTIONS] = false;
bool visible[TRANSACTIONS] = false;
bool published[TRANSACTIONS] = false;
bool oo = false;

inline complete(number)
{
    if
    :: number > completed -> completed = number
    :: else
    fi
}

proctype transaction(byte t)
{
    /* the lock of the user's row */
    atomic { (t != 2) || visible[0] -> running[t] = true; xid[t] = next_xid; next_xid++ }
    atomic { id[t] = next_id; next_id++ }
    atomic { running[t] = false; visible[t] = true; complete(xid[t]) }
}

proctype relay()
{
    byte floor = 0;
    byte mark = 0;
    byte mark_xid = 0;
    byte highest = 0;
    byte xmin;
    byte xmax;
    byte own_xid = 0;
    byte t;
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
        xmax = completed + 1;
        xmin = xmax;
        for (t : 0 .. TRANSACTIONS - 1) {
            if
            :: running[t] && xid[t] < xmin -> xmin = xid[t]
            :: else
            fi
        };
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
        t = 0;
#if FLOOR == 2
        floor = highest;
#endif
#if FLOOR == 0
        if
        :: floor = mark; mark = highest
        :: skip
        fi;
#endif
#if FLOOR == 3
        if
        :: xmin >= mark_xid -> floor = mark; mark = highest; mark_xid = xmax
        :: else
        fi;
#endif
#if FLOOR == 1
        if
        :: mark > floor && xmin >= mark_xid -> floor = mark
        :: else
        fi;
#endif
        xmin = 0; xmax = 0; is_rescan = false
       }
#if FLOOR == 1
       ;
       /* a read that marks goes on: its xid comes after its snapshot, at any time, and it ends at any time */
       if
       :: highest > floor && mark <= floor ->
            atomic { own_xid = next_xid; next_xid++ };
            atomic { complete(own_xid); mark = highest; mark_xid = own_xid; own_xid = 0 }
       :: else
       fi
#endif
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
