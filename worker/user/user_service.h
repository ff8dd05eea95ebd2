/* What can be done with users, and the rules for it. Knows neither gRPC nor SQL nor Kafka.
 *
 * Questions are objects of the caller's (embedded in a call's arena): fill in the inputs, call the
 * function, wait for `on_done`. Threads: the functions may be called from the rpc thread or the
 * loop thread; on_done runs on the loop thread, or, when the answer is known at once (a rule is
 * broken, the queue is full), on the caller's thread before the function returns. Each question is
 * answered exactly once. Outputs live until on_done returns.
 */
#ifndef USERD_WORKER_USER_USER_SERVICE_H
#define USERD_WORKER_USER_USER_SERVICE_H

#include "worker/store/user_store.h"

struct user_service;

/* `store` must outlive it. */
MUST_CHECK int user_service_new(struct user_store *store, struct user_service **ret_service);
struct user_service *user_service_free(struct user_service *service);

void user_service_find_name(struct user_service *service, struct user_name_question *question);
void user_service_find_names(struct user_service *service, struct user_names_question *question);
/* Exact match first (of several, the one that holds the name's canonical form, else the least row
 * id), else the holder of the canonical form. */
void user_service_find_id(struct user_service *service, struct user_id_question *question);
/* Checks the rules and stores the name in NFC. USER_NAME_INVALID comes with a message for people.
 */
void user_service_rename(struct user_service *service, struct user_rename *rename);
void user_service_delete(struct user_service *service, struct user_delete *delete_request);

/* Applies consecutive consumed events in one transaction with their position; loop thread only. A
 * registration is never refused for its name: it is stored as sent, with the claim only if the
 * rules allow it and the name is free. */
void user_service_apply_events(struct user_service *service, struct user_event_batch *batch);

#endif
