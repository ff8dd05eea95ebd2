/* `userd`: the command that people type, and with `run` the master.
 *
 * The master never opens a database or Kafka connection, never reads a client's byte, and links
 * none of the libraries that would: it must survive whatever those do to the children.
 */
#include <fcntl.h>
#include <stdbool.h>
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
#include "master/command_options.h"
#include "master/command_ready.h"
#include "master/command_run.h"
#include "master/command_top.h"

#define HELP_USAGE "help [COMMAND]"

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
    {"ready", COMMAND_READY_USAGE, "whether calls are served: exit status 0, or 1 and why not",
        command_ready},
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
    {"help", HELP_USAGE, "this text, or how a command is used", command_help},
};

static void print_help(FILE *stream)
{
    (void)fprintf(stream, "usage: userd COMMAND ...\n\n");
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        (void)fprintf(stream, "  %-16s %s\n", commands[i].name, commands[i].purpose);
    (void)fprintf(stream, "\nuserd help COMMAND explains its options\n");
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
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

static int help_with(const struct command *command)
{
    (void)printf("usage: userd %s\n\n%s\n", command->usage, command->purpose);
    command_options_print(stdout, command->usage);
    return fflush(stdout) == 0 && !ferror(stdout) ? EX_OK : EX_IOERR;
}

static int command_help(int argc, char **argv)
{
    if (argc > 2)
        return command_options_refuse(HELP_USAGE, "help takes one command");
    if (argc < 2) {
        print_help(stdout);
        return fflush(stdout) == 0 && !ferror(stdout) ? EX_OK : EX_IOERR;
    }
    const struct command *command = find_command(argv[1]);
    return command != NULL ? help_with(command) : refuse_unknown(argv[1]);
}

/* Among a command's own words, whatever else stands there: who asks for help may have the rest
 * wrong. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
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
    const struct command *command = find_command(name);
    if (command == NULL)
        return refuse_unknown(name);
    if (asks_for_help(argc - 1, argv + 1))
        return help_with(command);
    return command->function(argc - 1, argv + 1);
}
