/* user_post.UserPost, what the Post Service calls: GetByUsername, GetByID, GetByIDs. Turns each
 * call into a question to the user service and its answer into the response; knows no rules. */
#ifndef USERD_WORKER_API_USER_POST_V1_H
#define USERD_WORKER_API_USER_POST_V1_H

#include "worker/user/user_service.h"

#include "user_post/user_post.pb-c.h"

struct user_post_v1 {
    UserPost__UserPost_Service service; /* first: what rpc_server serves is &service.base */
    struct user_service *users;
};

void user_post_v1_init(struct user_post_v1 *user_post_v1, struct user_service *users);

#endif
