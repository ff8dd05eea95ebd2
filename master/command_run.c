#include "master/command_run.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "common/descriptor_limit.h"
#include "common/log.h"
#include "common/settings_file.h"
#include "master/command_options.h"
#include "master/handover.h"
#include "master/supervisor.h"

/* Children inherit the limit, and one worker may come to hold all connections. The soft limit
 * guards programs that use select(2); neither sd-event nor the C core does. */
static void raise_descriptor_limit(const struct settings *settings)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("descriptor limit not raised error=\"%s\"", strerror(errno));
    uint64_t wanted = descriptor_limit_for((uint64_t)settings->limits.connections);
    if (limit.rlim_max < wanted)
        log_warn("descriptor limit is too low for limits.connections: a worker takes %d for each, "
                 "and turns away those that it has none for limit=%llu wanted=%llu",
            DESCRIPTORS_OF_A_CONNECTION, (unsigned long long)limit.rlim_max,
            (unsigned long long)wanted);
}

/* What is assumed is said: a service without a configuration file may be one whose file is missing.
 */
static void say_what_is_assumed(
    const struct command_options *options, const struct settings *settings)
{
    if (!options->is_file_named && strcmp(options->file, COMMAND_OPTIONS_NO_FILE) == 0)
        log_info("no configuration file, the defaults and the environment are used missing=%s",
            SETTINGS_FILE_DEFAULT);
    if (settings->has_standard_servers)
        log_warn("no broker is named, the default is used servers=\"%s\" expected=\"KAFKA_URL, "
                 "KAFKA_BOOTSTRAP_SERVERS or kafka.bootstrap_servers\"",
            settings->kafka.bootstrap_servers);
}

static int read_settings(const struct command_options *options, struct settings *ret_settings)
{
    struct settings_complaints warnings = {0};
    int status = command_options_read_quietly(options->file, ret_settings, &warnings);
    if (status == EX_OK) {
        log_init("master");
        log_configure(
            (enum log_level)ret_settings->log.level, (enum log_format)ret_settings->log.format);
        settings_complaints_log(&warnings, LOG_LEVEL_WARN);
        say_what_is_assumed(options, ret_settings);
    }
    settings_complaints_cleanup(&warnings);
    return status;
}

int command_run(int argc, char **argv)
{
    int blocked = supervisor_block_requests();
    if (blocked < 0) {
        log_error("signals not blocked error=\"%s\"", strerror(-blocked));
        return EX_OSERR;
    }
    struct command_options options;
    int status = command_options_parse(argc, argv, COMMAND_RUN_USAGE, &options);
    if (status != EX_OK)
        return status;
    if (options.has_all || options.has_json || options.word_count > 0)
        return command_options_refuse(COMMAND_RUN_USAGE, "run takes no further words");

    int handover_fd = handover_take_fd();
    if (handover_fd >= 0)
        return supervisor_take_over(options.file, handover_fd);
    struct settings settings;
    status = read_settings(&options, &settings);
    if (status != EX_OK)
        return status;
    status = command_options_check_children(options.file, &settings);
    if (status != EX_OK) {
        settings_cleanup(&settings);
        return status;
    }
    raise_descriptor_limit(&settings);
    const struct supervisor_plan plan = {
        .file = options.file, .settings = &settings, .migrates = options.has_migrate};
    return supervisor_run(&plan);
}
