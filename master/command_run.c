#include "master/command_run.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "common/descriptor_limit.h"
#include "common/log.h"
#include "common/settings.h"
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
    status = command_options_read_settings(options.file, &settings);
    if (status != EX_OK)
        return status;
    log_init("master");
    log_configure((enum log_level)settings.log.level, (enum log_format)settings.log.format);
    status = command_options_check_kafka(options.file, &settings);
    if (status != EX_OK) {
        settings_cleanup(&settings);
        return status;
    }
    raise_descriptor_limit(&settings);
    const struct supervisor_plan plan = {
        .file = options.file, .settings = &settings, .migrates_first = options.has_migrate};
    return supervisor_run(&plan);
}
