#include "tests/bench/load_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/load_request.h"

#define ZIPF_EXPONENT 0.99 /* as in YCSB */
#define MAX_WEIGHT    1000000

enum option_name {
    OPTION_ADDRESS = 1,
    OPTION_METHOD,
    OPTION_MIX,
    OPTION_CONNECTIONS,
    OPTION_STREAMS,
    OPTION_CALLS,
    OPTION_SECONDS,
    OPTION_WARMUP,
    OPTION_RATE,
    OPTION_IDS,
    OPTION_KEYS,
    OPTION_ZIPF,
    OPTION_IDS_PER_CALL,
    OPTION_TIMEOUT,
    OPTION_CANCEL_MILL,
    OPTION_VERIFY,
    OPTION_RECONNECT,
    OPTION_SEED,
    OPTION_JSON,
};

static const struct option option_names[] = {
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"method", required_argument, NULL, OPTION_METHOD},
    {"mix", required_argument, NULL, OPTION_MIX},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"streams", required_argument, NULL, OPTION_STREAMS},
    {"calls", required_argument, NULL, OPTION_CALLS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"ids", required_argument, NULL, OPTION_IDS},
    {"keys", required_argument, NULL, OPTION_KEYS},
    {"zipf", required_argument, NULL, OPTION_ZIPF},
    {"ids-per-call", required_argument, NULL, OPTION_IDS_PER_CALL},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"cancel-mill", required_argument, NULL, OPTION_CANCEL_MILL},
    {"verify", no_argument, NULL, OPTION_VERIFY},
    {"reconnect", no_argument, NULL, OPTION_RECONNECT},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"json", no_argument, NULL, OPTION_JSON},
    {NULL, 0, NULL, 0},
};

static void refuse(const char *what, const char *why)
{
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static uint64_t parse_number(const char *text, uint64_t most)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > most)
        refuse(text, "expected a number");
    return value;
}

static double parse_amount(const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < 0)
        refuse(text, "expected an amount that is not below 0");
    return value;
}

static void parse_addresses(struct load_plan *plan, char *text)
{
    char *rest = NULL;
    for (char *one = strtok_r(text, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest)) {
        char *colon = strrchr(one, ':');
        if (colon == NULL || plan->address_count == LOAD_MAX_ADDRESSES)
            refuse(one, "expected HOST:PORT, sixteen of them at most");
        *colon = '\0';
        struct sockaddr_in *address = &plan->addresses[plan->address_count++];
        address->sin_family = AF_INET;
        address->sin_port = htons((uint16_t)parse_number(colon + 1, UINT16_MAX));
        if (inet_pton(AF_INET, one, &address->sin_addr) != 1)
            refuse(one, "expected an IPv4 address");
    }
}

static void set_weight(struct load_plan *plan, const char *name, uint32_t weight)
{
    int method = load_request_find_method(name);
    if (method < 0)
        refuse(name, "expected a method, such as GetUser or /user.User/GetUser");
    plan->weights[method] = weight;
}

/* "GetUser=90,UserUpdate=10" */
static void parse_mix(struct load_plan *plan, char *text)
{
    char *rest = NULL;
    memset(plan->weights, 0, sizeof(plan->weights));
    for (char *one = strtok_r(text, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(one, '=');
        if (equals == NULL)
            refuse(one, "expected METHOD=WEIGHT");
        *equals = '\0';
        set_weight(plan, one, (uint32_t)parse_number(equals + 1, MAX_WEIGHT));
    }
}

static void parse_keys(struct load_plan *plan, const char *value)
{
    if (strcmp(value, "zipf") == 0)
        plan->keys.exponent = ZIPF_EXPONENT;
    else if (strcmp(value, "uniform") == 0)
        plan->keys.exponent = 0;
    else
        refuse(value, "expected uniform or zipf");
}

static void parse_option(struct load_plan *plan, enum option_name option, char *value)
{
    switch (option) {
    case OPTION_ADDRESS:
        parse_addresses(plan, value);
        return;
    case OPTION_METHOD:
        memset(plan->weights, 0, sizeof(plan->weights));
        set_weight(plan, value, 1);
        return;
    case OPTION_MIX:
        parse_mix(plan, value);
        return;
    case OPTION_CONNECTIONS:
        plan->connections = parse_number(value, UINT16_MAX);
        return;
    case OPTION_STREAMS:
        plan->streams = parse_number(value, UINT16_MAX);
        return;
    case OPTION_CALLS:
        plan->calls = parse_number(value, UINT32_MAX);
        return;
    case OPTION_SECONDS:
        plan->seconds = parse_amount(value);
        return;
    case OPTION_WARMUP:
        plan->warmup_s = parse_amount(value);
        return;
    case OPTION_RATE:
        plan->rate = parse_amount(value);
        return;
    case OPTION_IDS:
        plan->keys.count = (uint32_t)parse_number(value, INT32_MAX);
        return;
    case OPTION_KEYS:
        parse_keys(plan, value);
        return;
    case OPTION_ZIPF:
        plan->keys.exponent = parse_amount(value);
        return;
    case OPTION_IDS_PER_CALL:
        plan->ids_per_call = parse_number(value, LOAD_MAX_IDS_PER_CALL);
        return;
    case OPTION_TIMEOUT:
        plan->timeout = value;
        return;
    case OPTION_CANCEL_MILL:
        plan->cancel_mill = (uint32_t)parse_number(value, 1000);
        return;
    case OPTION_VERIFY:
        plan->verifies = true;
        return;
    case OPTION_RECONNECT:
        plan->reconnects = true;
        return;
    case OPTION_SEED:
        plan->seed = parse_number(value, UINT32_MAX);
        return;
    case OPTION_JSON:
        plan->prints_json = true;
        return;
    }
    exit(EXIT_FAILURE); /* getopt has said why */
}

void load_options_parse(struct load_plan *plan, int argc, char **argv)
{
    plan->connections = 8;
    plan->streams = 32;
    plan->seconds = 5;
    plan->warmup_s = 1;
    plan->seed = 1;
    plan->keys.count = 100000;
    plan->ids_per_call = 1;
    plan->weights[LOAD_GET_USER] = 1;
    for (;;) {
        int option = getopt_long(argc, argv, "", option_names, NULL);
        if (option < 0)
            break;
        parse_option(plan, (enum option_name)option, optarg);
    }
    for (unsigned int i = 0; i < LOAD_METHODS; i++)
        plan->weight_sum += plan->weights[i];
    if (optind != argc || plan->address_count == 0 || plan->connections == 0 ||
        plan->streams == 0 || plan->seconds == 0 || plan->keys.count == 0 ||
        plan->ids_per_call == 0 || plan->weight_sum == 0)
        refuse("usage", "see the head of tests/bench/load_generator.c");
}
