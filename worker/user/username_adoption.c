#include "worker/user/username_adoption.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/store/claim_store.h"
#include "worker/user/username_rules.h"

/* A line of progress for so many users. */
#define PROGRESS_USERS 100000

struct adoption {
    struct unclaimed_users users;
    struct new_claim claims[CLAIM_STORE_BATCH];
    size_t claim_count;
    int64_t seen;
    int64_t claimed;
    int64_t refused; /* the name breaks a rule */
};

static void clear_claims(struct adoption *adoption)
{
    for (size_t i = 0; i < adoption->claim_count; i++)
        free(adoption->claims[i].canonical);
    adoption->claim_count = 0;
}

static int make_claims(struct adoption *adoption)
{
    for (size_t i = 0; i < adoption->users.count; i++) {
        const struct unclaimed_user *user = &adoption->users.users[i];
        struct username_forms forms CLEANUP(username_forms_cleanup) = {0};
        char message[USERNAME_MESSAGE_SIZE];
        int error = username_rules_apply(user->username, user->username_length, &forms, message);
        if (error == -EINVAL) {
            adoption->refused++;
            continue;
        }
        if (error < 0)
            return error;
        adoption->claims[adoption->claim_count++] = (struct new_claim){
            .user = user,
            .canonical_length = forms.canonical_length,
            .canonical = TAKE_PTR(forms.canonical),
        };
    }
    return 0;
}

/* The next users above *row_id; *row_id then is the last one's. */
static int adopt_batch(struct schema_session *session, struct adoption *adoption, int32_t *row_id)
{
    clear_claims(adoption);
    unclaimed_users_cleanup(&adoption->users);
    int error = claim_store_find_unclaimed(session, *row_id, &adoption->users);
    if (error < 0 || adoption->users.count == 0)
        return error;
    error = make_claims(adoption);
    if (error < 0)
        return error;
    int64_t inserted = 0;
    if (adoption->claim_count > 0)
        error = claim_store_insert(session, adoption->claims, adoption->claim_count, &inserted);
    if (error < 0)
        return error;
    int64_t seen_before = adoption->seen;
    adoption->claimed += inserted;
    adoption->seen += (int64_t)adoption->users.count;
    *row_id = adoption->users.users[adoption->users.count - 1].row_id;
    if (adoption->seen / PROGRESS_USERS != seen_before / PROGRESS_USERS)
        log_info("adopting usernames users=%lld claims=%lld", (long long)adoption->seen,
            (long long)adoption->claimed);
    return 0;
}

static int adopt_all(struct schema_session *session, struct adoption *adoption)
{
    int64_t stale = 0;
    int error = claim_store_remove_stale(session, &stale);
    if (error < 0)
        return error;
    int32_t row_id = INT_MIN;
    do
        error = adopt_batch(session, adoption, &row_id);
    while (error == 0 && adoption->users.count > 0);
    if (error < 0)
        return error;
    if (stale > 0 || adoption->seen > 0)
        log_info("usernames adopted stale_claims_removed=%lld users_without_claim=%lld claimed=%lld"
                 " against_rules=%lld taken=%lld",
            (long long)stale, (long long)adoption->seen, (long long)adoption->claimed,
            (long long)adoption->refused,
            (long long)(adoption->seen - adoption->claimed - adoption->refused));
    return 0;
}

int username_adoption_run(struct schema_session *session)
{
    struct adoption *adoption = calloc(1, sizeof(*adoption));
    if (!adoption)
        return -ENOMEM;
    int error = adopt_all(session, adoption);
    clear_claims(adoption);
    unclaimed_users_cleanup(&adoption->users);
    free(adoption);
    return error;
}
