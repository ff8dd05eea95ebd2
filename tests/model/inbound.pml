/* The way in: N consecutive records of one partition, the last of them garbage (a dead letter is its effect).
 * Two eventds (after a rebalance the old one may linger as a zombie), two workers for each, one database that holds the
 * position and the effects and changes them in one transaction. F is the number of faults that may happen.
 *
 * As built:           -DCAS=1 (batches compare-and-set the position), positions from PostgreSQL, asked again after a reconnect
 * Broken on purpose:  -DCAS=0     a batch is applied whatever the position is
 *                     -DSPLIT=1   position and effects in two transactions
 *                     -DEARLYC=1  Kafka's commit before the worker's answer
 *                     -DPGLOSS=1 -DSTART=0  the database loses a transaction, and Kafka's commit is the truth
 *                     -DPGLOSS=1 -DREASK=0  the database loses a transaction, and nobody asks for the position again
 *                     -DDROP=1    garbage is skipped without a dead letter
 */
#ifndef CAS
#define CAS 1
#endif
#ifndef SPLIT
#define SPLIT 0
#endif
#ifndef EARLYC
#define EARLYC 0
#endif
#ifndef START
#define START 1
#endif
#ifndef REASK
#define REASK 1
#endif
#ifndef PGLOSS
#define PGLOSS 0
#endif
#ifndef DROP
#define DROP 0
#endif
#ifndef F
#define F 3
#endif
#define N 3
#define MISMATCH 16

byte f = F;
byte pos = 0;      /* in PostgreSQL */
byte prev = 0;     /* the position before the last transaction */
byte kc = 0;       /* Kafka's committed offset: advice */
byte eff[N] = 0;
byte owner = 255;
bool rst[2] = false;   /* a worker died: the channel ended */
bool again[2] = false; /* the database's sessions were dropped */
bool pgl = PGLOSS;
bool oo = false;
bool dupe = false;
bool ahead = false;
chan job[2] = [1] of { byte, byte };
chan ack[2] = [1] of { byte };

inline drain2(c)
{
    byte z; byte y;
    do
    :: nempty(c) -> c?z,y
    :: empty(c) -> break
    od
}

inline drain1(c)
{
    byte x;
    do
    :: nempty(c) -> c?x
    :: empty(c) -> break
    od
}

inline apply(a, b)
{
    byte i = a;
    do
    :: i < b ->
        if
        :: DROP == 1 && i == N - 1
        :: else ->
            if
            :: i > 0 && eff[i - 1] == 0 -> oo = true
            :: else
            fi;
            eff[i]++;
            if
            :: eff[i] > 1 -> dupe = true
            :: else
            fi
        fi;
        i++
    :: else -> break
    od
}

proctype worker(byte m)
{
    byte a; byte b;
end:
    do
    :: atomic {
        job[m]?a,b ->
        if
        :: f > 0 -> f--; rst[m] = true /* dies before the commit */
        :: else -> skip
        :: skip ->
            if
            :: CAS == 1 && pos != a -> ack[m]!(MISMATCH)
            :: else ->
#if SPLIT
                d_step { apply(a, b) };
                if
                :: f > 0 -> f--; rst[m] = true /* between the two transactions */
                :: d_step { prev = pos; pos = b }; ack[m]!b
                fi
#else
                d_step { apply(a, b); prev = pos; pos = b };
                if
                :: ack[m]!b
                :: f > 0 -> f--; rst[m] = true /* dies after the commit, before the answer */
                fi
#endif
            fi
        fi
       }
    od
}

inline commit_offset(to)
{
    if
    :: owner == m && kc < to -> kc = to;
        if
        :: kc > pos && !PGLOSS -> ahead = true
        :: else
        fi
    :: else
    fi
}

proctype eventd(byte m)
{
    byte next; byte r; bool infl;
endA:
    atomic {
        owner == 255 -> owner = m; infl = false; rst[m] = false; again[m] = false;
        if
        :: START == 1 -> next = pos
        :: else -> next = kc
        fi
    }
end:
    do
    :: atomic { !infl && next < N && nfull(job[m]) -> job[m]!next,(next + 1); infl = true;
        if
        :: EARLYC == 1 -> commit_offset(next + 1)
        :: else
        fi }
    :: atomic { !infl && next + 1 < N && nfull(job[m]) -> job[m]!next,(next + 2); infl = true }
    :: atomic { ack[m]?r -> infl = false;
        if
        :: r == MISMATCH -> next = pos
        :: else -> next = r; commit_offset(next)
        fi }
    :: atomic { rst[m] -> rst[m] = false; infl = false }                              /* sent again, to another worker */
    :: atomic { REASK == 1 && again[m] -> again[m] = false; drain2(job[m]); drain1(ack[m]); infl = false; next = pos }
    :: atomic { owner == m && f > 0 -> f--; owner = 255 }                             /* rebalance: goes on as a zombie */
    :: atomic { f > 0 -> f--;
        if
        :: owner == m -> owner = 255
        :: else
        fi;
        drain2(job[m]); drain1(ack[m]) } goto endA                                    /* dies and is started again */
    od
}

proctype postgresql()
{
end:
    do
    :: atomic { pgl && pos > prev -> pgl = false; /* fails over, and forgets the last transaction */
        do
        :: pos > prev -> pos--; eff[pos]--
        :: else -> break
        od;
        again[0] = true; again[1] = true }
    od
}

proctype mon()
{
    timeout -> assert(eff[0] == 1 && eff[1] == 1 && eff[2] == 1 && pos == N)
}

init {
    atomic {
        run mon(); run worker(0); run worker(0); run worker(1); run worker(1); run eventd(0); run eventd(1); run postgresql()
    }
}

ltl safe { [] (!oo && !dupe && !ahead) }
