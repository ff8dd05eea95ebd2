/* `userd`: the command that people type, and with `run` the master.
 *
 * The master never opens a database or Kafka connection, never reads a client's byte, and links
 * none of the libraries that would: it must survive whatever those do to the children.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/log.h"
#include "common/nearest_name.h"
#include "master/command_admin.h"
#include "master/command_check.h"
#include "master/command_dead_letters.h"
#include "master/command_handover.h"
#include "master/command_migrate.h"
#include "master/command_run.h"
#include "master/command_top.h"

struct command {
    const char *name;
    const char *usage;
    const char *purpose;
    int (*function)(int argc, char **argv); /* argv[0] is the command's name */
};

static int command_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("userd %s\n", USERD_VERSION);
    return EX_OK;
}

/* Declared ahead: help prints the table that it stands in. */
static int command_help(int argc, char **argv);

static const struct command commands[] = {
    {"run", COMMAND_RUN_USAGE, "the service, in the foreground", command_run},
    {"status", COMMAND_ADMIN_STATUS_USAGE, "what the running service does", command_admin_status},
    {"top", COMMAND_TOP_USAGE, "the same, live", command_top},
    {"metrics", COMMAND_ADMIN_METRICS_USAGE, "the same numbers for Prometheus",
        command_admin_metrics},
    {"reload", COMMAND_ADMIN_RELOAD_USAGE, "put the configuration in force", command_admin_reload},
    {"stop", COMMAND_ADMIN_STOP_USAGE, "end the service and wait for it", command_admin_stop},
    {"upgrade", COMMAND_ADMIN_UPGRADE_USAGE, "put the installed programs in force",
        command_admin_upgrade},
    {"check", COMMAND_CHECK_USAGE, "read the configuration and say it back", command_check},
    {"migrate", COMMAND_MIGRATE_USAGE, "the database schema", command_migrate},
    {"dead-letters", COMMAND_DEAD_LETTERS_USAGE, "events that could not be applied",
        command_dead_letters},
    {"handover-check", COMMAND_HANDOVER_USAGE, "asked by a running userd before an upgrade",
        command_handover},
    {"version", "version", "which userd this is", command_version},
    {"help", "help", "this text", command_help},
};

static void print_help(FILE *stream)
{
    (void)fprintf(stream, "usage: userd COMMAND ...\n\n");
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        (void)fprintf(stream, "  userd %-42s %s\n", commands[i].usage, commands[i].purpose);
}

static int command_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    print_help(stdout);
    return EX_OK;
}

static int refuse_unknown(const char *name)
{
    const char *names[ARRAY_LENGTH(commands)];
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        names[i] = commands[i].name;
    int nearest = nearest_name_find(name, names, ARRAY_LENGTH(names));
    if (nearest >= 0)
        (void)fprintf(
            stderr, "userd: unknown command %s: did you mean %s?\n", name, names[nearest]);
    else
        (void)fprintf(stderr, "userd: unknown command %s: userd help lists them\n", name);
    return EX_USAGE;
}

/* A parent may have closed them: what is opened next must not be taken for standard error. */
static void fill_standard_descriptors(void)
{
    int fd = 0;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        (void)close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    log_init("userd");
    if (argc < 2) {
        print_help(stderr);
        return EX_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].function(argc - 1, argv + 1);
    return refuse_unknown(name);
}
