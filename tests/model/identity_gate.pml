/* One id, and three transactions about it that may run at any time beside each other: two registrations and a deletion.
 * A transaction sees what was committed when its statement began (READ COMMITTED), and its writes show when it commits.
 *
 * As built:           -DGATE=1  registrations lock identity_gate in SHARE mode, the deletion in ROW EXCLUSIVE mode
 * Broken on purpose:  -DGATE=0  no lock
 *                     -DGATE=2  the snapshot is taken before the lock is held
 *
 * safe: no user exists whose id is tombstoned.
 */
#ifndef GATE
#define GATE 1
#endif

bool user = false;      /* committed */
bool tombstone = false; /* committed */
bool claimed = false;   /* an uncommitted row holds the unique key */
byte share = 0;
byte exclusive = 0;

proctype registration()
{
    bool sees_tombstone;
    bool sees_user;
#if GATE == 2
    atomic { sees_tombstone = tombstone; sees_user = user };
#endif
#if GATE
    atomic { exclusive == 0 -> share++ };
#endif
#if GATE != 2
    atomic { sees_tombstone = tombstone; sees_user = user };
#endif
    if
    :: !sees_tombstone && !sees_user ->
        atomic { !claimed -> /* ON CONFLICT DO NOTHING waits for whoever holds the key */
            if
            :: user -> skip
            :: else -> claimed = true
            fi };
        atomic {
            if
            :: claimed -> user = true; claimed = false
            :: else
            fi }
    :: else
    fi;
#if GATE
    share--
#endif
}

proctype deletion()
{
#if GATE
    atomic { share == 0 -> exclusive++ };
#endif
    bool sees_user = user;
    atomic { /* commits */
        tombstone = true;
        if
        :: sees_user -> user = false
        :: else
        fi }
#if GATE
    exclusive--
#endif
}

init { atomic { run registration(); run registration(); run deletion() } }

ltl safe { [] !(user && tombstone) }
