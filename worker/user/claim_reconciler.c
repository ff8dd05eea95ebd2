#include "worker/user/claim_reconciler.h"

#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/store/reconcile_store.h"
#include "worker/user/username_rules.h"

#define INTERVAL_US UINT64_C(1000000)
#define ACCURACY_US UINT64_C(100000)

struct claim_reconciler {
    struct user_store *store;
    const struct scoreboard_slot *slot;
    sd_event_source *timer; /* owned */
    struct reconcile_pass pass;
    bool is_running; /* a pass is */
    bool is_freed;   /* by its owner: the pass that runs frees it */
};

static int make_canonical(
    const char *username, size_t length, char **ret_canonical, size_t *ret_length)
{
    struct username_forms forms CLEANUP(username_forms_cleanup) = {0};
    char message[USERNAME_MESSAGE_SIZE];
    int error = username_rules_apply(username, length, &forms, message);
    if (error == -EINVAL)
        return 0;
    if (error < 0)
        return error;
    *ret_length = forms.canonical_length;
    *ret_canonical = TAKE_PTR(forms.canonical);
    return 0;
}

static void look_in(struct claim_reconciler *reconciler, uint64_t delay_us)
{
    int error = sd_event_source_set_time_relative(reconciler->timer, delay_us);
    if (error >= 0)
        error = sd_event_source_set_enabled(reconciler->timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("timer failed where=claim_reconciler error=%d", -error);
}

static void on_done(struct reconcile_pass *pass, bool is_done)
{
    struct claim_reconciler *reconciler = pass->userdata;
    reconciler->is_running = false;
    if (reconciler->is_freed) {
        free(reconciler);
        return;
    }
    if (is_done && pass->ret_done > 0)
        log_info("usernames written by others reconciled users=%zu claimed=%zu"
                 " stale_claims_removed=%zu",
            pass->ret_users, pass->ret_claimed, pass->ret_stale);
    bool has_more = pass->ret_noted == RECONCILE_USERS && pass->ret_done > 0;
    look_in(reconciler, is_done && has_more ? 0 : INTERVAL_US);
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct claim_reconciler *reconciler = userdata;
    (void)source;
    (void)time_us;
    bool is_ours = atomic_load_explicit(&reconciler->slot->is_relay, memory_order_relaxed) != 0;
    if (!is_ours) {
        look_in(reconciler, INTERVAL_US);
        return 0;
    }
    reconciler->is_running = true;
    reconcile_store_run(reconciler->store, &reconciler->pass);
    return 0;
}

struct claim_reconciler *claim_reconciler_free(struct claim_reconciler *reconciler)
{
    if (reconciler == NULL)
        return NULL;
    reconciler->timer = sd_event_source_disable_unref(reconciler->timer);
    if (reconciler->is_running)
        reconciler->is_freed = true;
    else
        free(reconciler);
    return NULL;
}

int claim_reconciler_new(sd_event *event, struct user_store *store,
    const struct scoreboard_slot *slot, struct claim_reconciler **ret_reconciler)
{
    struct claim_reconciler *reconciler = calloc(1, sizeof(*reconciler));
    if (reconciler == NULL)
        return -ENOMEM;
    reconciler->store = store;
    reconciler->slot = slot;
    reconciler->pass = (struct reconcile_pass){
        .make_canonical = make_canonical, .on_done = on_done, .userdata = reconciler};
    int error = sd_event_add_time_relative(
        event, &reconciler->timer, CLOCK_MONOTONIC, INTERVAL_US, ACCURACY_US, on_timer, reconciler);
    if (error < 0) {
        free(reconciler);
        return error;
    }
    *ret_reconciler = reconciler;
    return 0;
}
