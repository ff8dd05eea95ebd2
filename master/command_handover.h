/* `userd handover-check`: asked by a running master of another release, or of this one, before it
 * lets this program take its place (upgrade.h). Reads what would be handed over and the
 * configuration, and changes nothing. */
#ifndef USERD_MASTER_COMMAND_HANDOVER_H
#define USERD_MASTER_COMMAND_HANDOVER_H

#define COMMAND_HANDOVER_USAGE "handover-check [-c FILE]"

int command_handover(int argc, char **argv);

#endif
