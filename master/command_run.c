#include "master/command_run.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/settings.h"
#include "master/command_options.h"
#include "master/handover.h"
#include "master/supervisor.h"

#define DESCRIPTORS_BESIDE_CONNECTIONS 256 /* channels, listeners, libraries */

/* Every connection is a descriptor here and at least one in its worker, and children inherit the
 * limit. The soft limit guards programs that use select(2); neither sd-event nor the C core does.
 */
static void raise_descriptor_limit(const struct settings *settings)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("descriptor limit not raised error=\"%s\"", strerror(errno));
    rlim_t wanted = (rlim_t)settings->limits.connections + DESCRIPTORS_BESIDE_CONNECTIONS;
    if (limit.rlim_max < wanted)
        log_warn("descriptor limit is too low for limits.connections, connections over it will be "
                 "closed limit=%llu wanted=%llu",
            (unsigned long long)limit.rlim_max, (unsigned long long)wanted);
}

int command_run(int argc, char **argv)
{
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
