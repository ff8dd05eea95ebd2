/* The one-shot child behind `userd check`, `userd run` and `userd reload`: says what librdkafka has
 * against our part of the configuration, before a service has to live with it.
 *
 * Makes both clients as eventd would, with no broker to connect to. No secret's value is in what it
 * says. Asked to, it then tries the brokers (cluster_check.h).
 */
#ifndef USERD_EVENTD_CONFIGURATION_CHECK_H
#define USERD_EVENTD_CONFIGURATION_CHECK_H

#include "common/attributes.h"
#include "common/process_link.h"

/* Sends the verdict and waits to be dismissed. Returns the exit status for main(). */
MUST_CHECK int configuration_check(struct process_link *link, bool connects);

#endif
