/* user.User, what the API Gateway calls: DeleteUser, GetUser, UserUpdate. Turns each call into a
 * question to the user service and its answer into the response; knows no rules. */
#ifndef USERD_WORKER_API_USER_V1_H
#define USERD_WORKER_API_USER_V1_H

#include "worker/user/user_service.h"

#include "user/user.pb-c.h"

struct user_v1 {
    User__User_Service service; /* first: what rpc_server serves is &service.base */
    struct user_service *users;
};

void user_v1_init(struct user_v1 *user_v1, struct user_service *users);

#endif
