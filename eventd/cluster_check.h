/* Tries what eventd would need of Kafka: the brokers, the four topics, the group. For the one-shot
 * child behind `userd check --connect`: it waits, for seconds. Changes nothing in Kafka. */
#ifndef USERD_EVENTD_CLUSTER_CHECK_H
#define USERD_EVENTD_CLUSTER_CHECK_H

#include "common/process_verdict.h"
#include "common/settings.h"

void cluster_check(const struct settings *settings, struct process_verdict *verdict);

#endif
