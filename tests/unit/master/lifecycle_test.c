/* Every pair of a state and an event has an answer, and the answers keep what is promised. */
#include <criterion/criterion.h>

#include "master/lifecycle.h"

/* NOLINTBEGIN(bugprone-macro-parentheses): the argument is declared */
#define EACH_STATE(state) for (enum lifecycle_state state = 0; state < LIFECYCLE_STATES; state++)
#define EACH_EVENT(event) for (enum lifecycle_event event = 0; event < LIFECYCLE_EVENTS; event++)
/* NOLINTEND(bugprone-macro-parentheses) */

static bool is_stop(enum lifecycle_state state)
{
    return state == LIFECYCLE_DRAINING || state == LIFECYCLE_STOPPING;
}

Test(lifecycle, answers_every_event_in_every_state)
{
    EACH_STATE(state)
    EACH_EVENT(event)
    {
        struct lifecycle_step step = lifecycle_next(state, event);
        cr_expect_neq(step.action, LIFECYCLE_UNFILLED, "state %d event %d", (int)state, (int)event);
        cr_expect_lt(step.next, LIFECYCLE_STATES);
    }
}

Test(lifecycle, never_comes_back_from_a_stop)
{
    EACH_STATE(state)
    EACH_EVENT(event)
    {
        enum lifecycle_state next = lifecycle_next(state, event).next;
        if (is_stop(state))
            cr_expect(is_stop(next), "state %d event %d", (int)state, (int)event);
        if (state == LIFECYCLE_STOPPING)
            cr_expect_eq(next, LIFECYCLE_STOPPING, "event %d", (int)event);
    }
}

Test(lifecycle, starts_nobody_while_it_stops)
{
    EACH_EVENT(event)
    {
        for (int i = 0; i < 2; i++) {
            enum lifecycle_state state = i == 0 ? LIFECYCLE_DRAINING : LIFECYCLE_STOPPING;
            enum lifecycle_action action = lifecycle_next(state, event).action;
            cr_expect(action != LIFECYCLE_RESPAWN && action != LIFECYCLE_FILL &&
                          action != LIFECYCLE_BEGIN_RELOAD && action != LIFECYCLE_BEGIN_UPGRADE,
                "state %d event %d", (int)state, (int)event);
        }
    }
}

Test(lifecycle, begins_a_reload_or_an_upgrade_where_it_has_no_reason_to_refuse)
{
    EACH_STATE(state)
    {
        bool is_refused = lifecycle_refusal(state) != NULL;
        enum lifecycle_action reload = lifecycle_next(state, LIFECYCLE_RELOAD_ASKED).action;
        enum lifecycle_action upgrade = lifecycle_next(state, LIFECYCLE_UPGRADE_ASKED).action;
        cr_expect_eq(reload, is_refused ? LIFECYCLE_REFUSE : LIFECYCLE_BEGIN_RELOAD);
        cr_expect_eq(upgrade, is_refused ? LIFECYCLE_REFUSE : LIFECYCLE_BEGIN_UPGRADE);
    }
}

Test(lifecycle, leaves_a_reload_only_by_a_verdict_a_refusal_or_a_stop)
{
    EACH_EVENT(event)
    {
        struct lifecycle_step step = lifecycle_next(LIFECYCLE_RELOADING, event);
        bool is_verdict = step.action == LIFECYCLE_COMMIT || step.action == LIFECYCLE_ABORT;
        bool is_other = event == LIFECYCLE_RELOAD_REFUSED || is_stop(step.next);
        cr_expect_eq(
            step.next != LIFECYCLE_RELOADING, is_verdict || is_other, "event %d", (int)event);
        if (is_verdict)
            cr_expect_eq(step.next, LIFECYCLE_RUNNING);
    }
}

Test(lifecycle, ends_at_once_on_a_second_signal_and_not_on_a_second_command)
{
    cr_expect_eq(
        lifecycle_next(LIFECYCLE_RUNNING, LIFECYCLE_STOP_SIGNALLED).action, LIFECYCLE_BEGIN_STOP);
    cr_expect_eq(
        lifecycle_next(LIFECYCLE_DRAINING, LIFECYCLE_STOP_SIGNALLED).action, LIFECYCLE_KILL_ALL);
    cr_expect_eq(lifecycle_next(LIFECYCLE_DRAINING, LIFECYCLE_STOP_ASKED).action, LIFECYCLE_IGNORE);
}

Test(lifecycle, gives_up_over_a_refused_configuration_only_before_it_has_served)
{
    EACH_STATE(state)
    cr_expect_eq(lifecycle_next(state, LIFECYCLE_CHILD_REFUSED).action == LIFECYCLE_GIVE_UP,
        state == LIFECYCLE_STARTING);
}

Test(lifecycle, will_run_by_itself_where_it_refuses_only_for_now)
{
    EACH_STATE(state)
    cr_expect_eq(lifecycle_will_run(state), lifecycle_refusal(state) != NULL && !is_stop(state));
}
