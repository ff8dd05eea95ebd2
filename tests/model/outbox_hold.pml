/* A destination that cannot be written to is held: what is over its share leaves the relay's window, and no more of it is read until the
 * hold ends. Rows 0, 1 and 2 belong to one user and one destination, in the order of their commits; the share is one row. Reads of other
 * destinations' rows move the floor meanwhile.
 *
 * As built:           -DRESET=1 -DALL=1 (when a hold ends everything is read from the beginning; of what waits behind the share all goes)
 * Broken on purpose:  -DRESET=0  the floor stays where it is when a hold ends, and rescans bring what is below it
 *                     -DALL=0    only rows that have failed go, and one that has not stays behind them
 *                     -DSTALE=1  a read that was on its way when a hold began is taken, with rows behind those that were let go
 *
 * safe: the rows are published in order. Rescans from the beginning come at any time.
 */
#ifndef RESET
#define RESET 1
#endif
#ifndef ALL
#define ALL 1
#endif
#ifndef STALE
#define STALE 0
#endif
#define ROWS 3

bool committed[ROWS] = false;
bool known[ROWS] = false;     /* in the window */
bool failed[ROWS] = false;    /* once, since it is in the window */
bool published[ROWS] = false;
bool is_away = true;          /* the destination cannot be written to */
bool read[ROWS] = false;      /* in the answer of the read that is on its way */
bool is_asked = false;        /* one is */
bool has_begun = false;       /* a hold, since it was asked for */
bool oo = false;

proctype writer()
{
    byte r;
    for (r : 0 .. ROWS - 1) {
        committed[r] = true
    }
}

proctype broker()
{
    is_away = false
}

/* The rows from `first` on that are not known; one read has one snapshot. Its answer comes at any time. */
inline ask_from(first)
{
    for (r : 0 .. ROWS - 1) {
        read[r] = r >= first && committed[r] && !published[r] && !known[r]
    };
    is_asked = true; has_begun = false
}

proctype relay()
{
    byte r;
    byte floor = 0; /* rows below it are not read */
    bool held = false;
end:
    do
    :: atomic { published[0] && published[1] && published[2] -> break }
    :: atomic { !held && !is_asked -> ask_from(floor); r = 0 }
    :: atomic { !held && !is_asked -> ask_from(0); r = 0 }
    :: atomic {
        is_asked -> is_asked = false;
        for (r : 0 .. ROWS - 1) {
            if
            :: read[r] && (STALE == 1 || !has_begun) -> known[r] = true
            :: else
            fi
        };
        r = 0
       }
    /* A younger row of somebody else was read, and all that ran then has ended. */
    :: atomic {
        for (r : 0 .. ROWS - 1) {
            if
            :: committed[r] && floor == r && (known[r] || published[r] || held) -> floor = r + 1
            :: else
            fi
        };
        r = 0
       }
    /* The first row of the user that is known goes; with many users any of them may be the one that failed, so that all have failed once. */
    :: atomic {
        for (r : 0 .. ROWS - 1) {
            if
            :: known[r] ->
                if
                :: is_away -> failed[r] = true
                :: else ->
                    if
                    :: (r > 0 && !published[r - 1]) -> oo = true
                    :: else
                    fi;
                    published[r] = true; known[r] = false; failed[r] = false
                fi;
                break
            :: else
            fi
        };
        r = 0
       }
    /* Over the share: the hold begins, and what waits behind the first row goes. */
    :: atomic {
        !held && failed[0] && known[1] -> held = true; has_begun = true;
        for (r : 1 .. ROWS - 1) {
            if
            :: known[r] && (ALL == 1 || r == 1) -> known[r] = false; failed[r] = false
            :: else
            fi
        };
        r = 0
       }
    :: atomic {
        held && !failed[0] -> held = false;
        if
        :: RESET == 1 -> floor = 0
        :: else
        fi
       }
    od
}

proctype mon()
{
    timeout -> assert(published[0] && published[1] && published[2])
}

init {
    atomic {
        run writer(); run broker(); run relay(); run mon()
    }
}

ltl safe { [] !oo }
