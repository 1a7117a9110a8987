/* nybble doctor: what this machine has for running models, how it would be used, and whether its devices do what
   kernels count on. A machine without a GPU is not ill: it says so and exits 0; a device that computes wrong is, and
   exits 1. */
#include "cli.h"
#include "cuda.h"
#include "cuda_code.h"
#include "device.h"
#include "doctor_atoms.h"

#include <string.h>

/* ---- text and JSON from the same calls */
typedef struct out {
  ny_text t;
  bool json, first;
} out;

static void key(out *o, const char *name, const char *label) {
  if (o->json) {
    ny_text_addf(&o->t, "%s\"%s\":", o->first ? "" : ",", name);
    o->first = false;
  } else {
    ny_text_addf(&o->t, "  %-18s ", label ? label : name);
  }
}
static void put_text(out *o, const char *name, const char *label, const char *value) {
  key(o, name, label);
  if (o->json)
    ny_text_json(&o->t, value);
  else
    ny_text_addf(&o->t, "%s\n", value);
}
static void put_number(out *o, const char *name, const char *label, double value) {
  key(o, name, label);
  ny_text_addf(&o->t, o->json ? "%.0f" : "%.0f\n", value);
}
static void put_bytes(out *o, const char *name, const char *label, uint64_t bytes, const char *note) {
  char b[32];
  key(o, name, label);
  if (o->json)
    ny_text_addf(&o->t, "%llu", (unsigned long long)bytes);
  else
    ny_text_addf(&o->t, "%s%s%s\n", cli_bytes((double)bytes, b), *note ? ", " : "", note);
}
static void open_object(out *o, const char *name, const char *title) {
  if (o->json)
    ny_text_addf(&o->t, name ? "%s\"%s\":{" : "%s%s{", o->first ? "" : ",", name ? name : "");
  else
    ny_text_addf(&o->t, "%s%s\n", o->t.n ? "\n" : "", title);
  o->first = true;
}
static void close_object(out *o) {
  if (o->json) ny_text_add(&o->t, "}");
  o->first = false;
}

/* ---- the machine */
static uint64_t memory_available(void) {
  FILE *f = fopen("/proc/meminfo", "re");
  char line[128];
  unsigned long long kb = 0;
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "MemAvailable: %llu", &kb) == 1) break;
  if (f) fclose(f);
  return (uint64_t)kb << 10;
}

static void host(out *o) {
  ny_host_facts h;
  ny_host_read(&h);
  open_object(o, "host", "host");
  put_text(o, "cpu", NULL, h.cpu_name);
  put_number(o, "threads", NULL, h.n_cpu);
  put_bytes(o, "memory", NULL, h.mem_bytes, "");
  put_bytes(o, "available", NULL, memory_available(), "MemAvailable");
  close_object(o);
}

static void compilers(out *o) {
  const ny_codegen *llvm;
  const ny_nvrtc *nvrtc;
  ny_diag d = {0};
  open_object(o, "compilers", "compilers");
  bool ok = !ny_codegen_open(&llvm, &d);
  put_text(o, ok ? "llvm" : "llvm_missing", "LLVM", ok ? "found" : d.message);
  ny_diag_clear(&d);
  ok = !ny_nvrtc_open(&nvrtc, &d);
  char version[32] = "";
  if (ok) snprintf(version, sizeof version, "%d.%d", nvrtc->major, nvrtc->minor);
  put_text(o, ok ? "nvrtc" : "nvrtc_missing", "NVRTC", ok ? version : d.message);
  if (ok) put_text(o, "nvrtc_path", "NVRTC path", nvrtc->path);
  close_object(o);
}

/* ---- devices */
static const struct {
  int number;
  const char *name, *text;
} attributes[] = {
#define ROW(name, number, text) {number, #name, text},
    NY_CU_ATTRIBUTES(ROW)
#undef ROW
};

static void attribute_rows(out *o, const ny_device *dev) {
  if (o->json) open_object(o, "attributes", "");
  for (size_t i = 0; i < NY_COUNT(attributes); i++) {
    int v = ny_device_attribute(dev, attributes[i].number);
    if (o->json)
      put_number(o, attributes[i].name, NULL, v);
    else
      ny_text_addf(&o->t, "    %-48s %d\n", attributes[i].text, v);
  }
  if (o->json) close_object(o);
}

/* Every instruction that kernels are built of, tried on the device. */
static int atom_rows(out *o, ny_device *dev) {
  doctor_atom row[64];
  int ill = 0;
  size_t n = doctor_atoms(dev, row, NY_COUNT(row));
  if (o->json)
    open_object(o, "instructions", "");
  else
    ny_text_add(&o->t, "  instructions\n");
  for (size_t i = 0; i < n; i++) {
    const char *verdict = doctor_verdicts[row[i].verdict];
    ill += row[i].verdict == DOCTOR_WRONG || row[i].verdict == DOCTOR_FAILED;
    if (!o->json) {
      ny_text_addf(&o->t, "    %-48s %s%s%s\n", row[i].name, verdict, *row[i].why ? ": " : "", row[i].why);
      continue;
    }
    open_object(o, row[i].name, "");
    put_text(o, "verdict", NULL, verdict);
    if (*row[i].why) put_text(o, "why", NULL, row[i].why);
    close_object(o);
  }
  if (o->json) close_object(o);
  return ill ? CLI_FAILED : CLI_OK;
}

static int device(out *o, const char *name) {
  ny_device *dev;
  ny_diag d = {0};
  uint64_t room = 0;
  const char *source = "";
  if (ny_device_open(name, &dev, &d)) return cli_diag(&d);
  const ny_device_facts *f = ny_device_describe(dev);
  char title[160], capability[16];
  snprintf(title, sizeof title, "%s: %s", f->spelled, f->name);
  snprintf(capability, sizeof capability, "%u.%u", f->sm / 10, f->sm % 10);
  open_object(o, NULL, title);
  if (o->json) put_text(o, "device", NULL, f->spelled), put_text(o, "name", NULL, f->name);
  put_text(o, "capability", NULL, capability);
  if (!ny_device_room(dev, &room, &source, &d)) put_bytes(o, "free", "free memory", room, source);
  if (o->json) put_text(o, "free_source", NULL, source);
  put_text(o, "policy", "memory policy", f->policy);
  attribute_rows(o, dev);
  int ill = atom_rows(o, dev);
  close_object(o);
  ny_device_close(dev);
  return ill;
}

/* The driver and its devices; with none, the sentence that says why. */
static int driver(out *o, bool simulated) {
  ny_device_list list;
  ny_diag d = {0};
  char version[32];
  nyb_status s = ny_device_find(simulated, &list, &d);
  int bad = CLI_OK;
  open_object(o, simulated ? "simulator" : "cuda", simulated ? "simulator" : "CUDA driver");
  if (s) {
    put_text(o, "missing", NULL, d.message);
    if (o->json) ny_text_add(&o->t, ",\"devices\":[]");
    close_object(o);
    return CLI_OK;
  }
  snprintf(version, sizeof version, "%d.%d", list.driver_version / 1000, list.driver_version % 1000 / 10);
  put_text(o, "library", NULL, list.library);
  put_text(o, "version", "CUDA", version);
  if (!list.n && !o->json) ny_text_add(&o->t, "  no device\n");
  if (o->json) ny_text_add(&o->t, ",\"devices\":["), o->first = true;
  for (int i = 0; i < list.n; i++) bad |= device(o, list.spelled[i]);
  if (o->json) ny_text_add(&o->t, "]");
  close_object(o);
  return bad;
}

int verb_doctor(int argc, char **argv) {
  int json = 0, sim = 0;
  cli_option option[] = {{"--json", CLI_FLAG, &json, NULL, "as one JSON object"},
                         {"--simulator", CLI_FLAG, &sim, NULL, "the simulated devices too"}};
  cli_parse("doctor", option, NY_COUNT(option), argc, argv, NULL, 0, 0);
  out o = {.json = json, .first = true};
  if (json) ny_text_add(&o.t, "{");
  host(&o);
  compilers(&o);
  int bad = driver(&o, false);
  if (sim) bad |= driver(&o, true);
  if (json) ny_text_add(&o.t, "}\n");
  fputs(o.t.s, stdout);
  ny_text_free(&o.t);
  return bad;
}
