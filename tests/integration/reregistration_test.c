/* events.allow_reregistration: an id that was deleted may come back. */
#include <criterion/criterion.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {
        .has_broker = true, .top_settings = "events = { allow_reregistration = true; };"};
    given_userd(&userd, &options);
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(reregistration, .init = init, .fini = fini, .timeout = 120);

Test(reregistration, makes_a_deleted_user_anew_with_the_claim_to_the_name)
{
    given_user(&userd, 17, "trinity");
    test_broker_send(&userd.broker, "admin_delete_user", "{\"id\": 17}");
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone WHERE id_auth = 17", "1");
    test_broker_send(&userd.broker, "registration", "{\"id\": 17, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 17, "morpheus");
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone", "0");
    then_database_says(
        &userd, "SELECT canonical FROM username_claim WHERE id_auth = 17", "morpheus");
    /* And may go again, which is told again. */
    test_broker_send(&userd.broker, "admin_delete_user", "{\"id\": 17}");
    then_name_becomes(&userd, 17, NULL);
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone WHERE id_auth = 17", "1");
}

Test(reregistration, leaves_the_tombstones_of_others_and_users_that_live)
{
    given_user(&userd, 18, "neo_the_one");
    test_broker_send(&userd.broker, "admin_delete_user", "{\"id\": 404}");
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone", "1");
    test_broker_send(&userd.broker, "registration", "{\"id\": 18, \"username\": \"impostor\"}");
    test_broker_send(&userd.broker, "registration", "{\"id\": 19, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 19, "morpheus");
    then_name_is(&userd, 18, "neo_the_one");
    then_database_says(&userd, "SELECT string_agg(id_auth::text, ',') FROM user_tombstone", "404");
}
