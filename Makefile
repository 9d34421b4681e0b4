# gradrun. `make run` trains a network on real images, `make test` proves the rest; `make help` lists all.

# ---- settings -------------------------------------------------------------------------------------------
CC      ?= cc
OPT     ?= -O2#               OPT="-O2 -g" for a debugger
SAN     ?=#                       e.g. SAN="-fsanitize=address,undefined" B=build/asan
B       ?= build#                 everything built is below it
PREFIX  ?= /usr/local
ARCH    := $(shell $(CC) -print-multiarch 2>/dev/null)
BLISDIR ?= /usr/lib/$(ARCH)/blis-pthread
BLISINC ?= /usr/include/$(ARCH)/blis-pthread
LUAINC  ?= /usr/include/lua5.4
LUALIB  ?= -llua5.4
PACKAGES = gcc libc6-dev make liblua5.4-dev lua5.4 libblis-pthread-dev libjansson-dev zlib1g-dev libminizip-dev libcmocka-dev \
           lua-busted lua-check pkgconf dataset-fashion-mnist

WARN   = -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes
CFLAGS = -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -fPIC -fvisibility=hidden -fno-math-errno -pthread -Iruntime -I$B/gen $(SAN)
# Kernels: plain C for the vectorizer. An op file is compiled once for each variant, and most of what it
# holds is used in one of them only.
KFLAGS = -fopenmp-simd -ffp-contract=fast -fno-trapping-math -fno-asynchronous-unwind-tables -Wno-unused-function -Wno-unused-const-variable
generic_f32 =
avx2_f32    = -mavx2 -mfma
avx512_f32  = -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma -mprefer-vector-width=512
generic_f64 = -DGRI_F64
avx2_f64    = -DGRI_F64 $(avx2_f32)
avx512_f64  = -DGRI_F64 $(avx512_f32)
VARIANTS = generic_f32 avx2_f32 avx512_f32 generic_f64 avx2_f64 avx512_f64
# Packed, the relocations of the tables of ops are 3 kB instead of 180.
LIBS     = -Wl,-z,pack-relative-relocs -L$(BLISDIR) -Wl,-rpath,$(BLISDIR) -lblis -ljansson -lminizip -lz -lm

# ---- what there is --------------------------------------------------------------------------------------
KERNELS := $(wildcard runtime/ops/*.c runtime/optims/*.c runtime/clips/*.c)
CORE    := $(wildcard runtime/*.c runtime/layers/*.c runtime/io/*.c)
BIND    := $(filter-out lua/main.c,$(wildcard lua/*.c))
MODULES := $(wildcard lua/gradrun/*.lua)
KOBJ    := $(foreach v,$(VARIANTS),$(KERNELS:runtime/%.c=$B/kernel/$v/%.o))
COBJ    := $(CORE:runtime/%.c=$B/core/%.o) $B/gen/lists.o
BOBJ    := $(BIND:lua/%.c=$B/lua/%.o) $B/gen/modules.o

.PHONY: all run test specs deps help clean bench check-all layers install fuzz races
.DEFAULT_GOAL := all

all: $B/gradrun $B/libgradrun.a $B/libgradrun.so $B/lua/gradrun/core.so $B/embed_host ## build everything

run: deps ## train a convolutional network on Fashion-MNIST; ARGS="--epochs 12" goes on
	@$(MAKE) -s -j$$(nproc) $B/gradrun
	$B/gradrun scripts/fashion_cnn.lua $(ARGS)

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

clean: ## remove what was built
	rm -rf build

# ---- lists of what exists: names only, from the descriptors ---------------------------------------------
LISTED := $(KERNELS) $(wildcard runtime/layers/*.c)
$B/gen/oplist.h: $B/gen/oplist.stamp ; # changes only when a name comes or goes
$B/gen/oplist.stamp: $(LISTED) spec/lists.sh Makefile
	@mkdir -p $(@D); sh spec/lists.sh header $(LISTED) > $@; cmp -s $@ $(@D)/oplist.h || cp $@ $(@D)/oplist.h
$B/gen/lists.c: $B/gen/oplist.stamp
	@sh spec/lists.sh tables $(LISTED) > $@
$B/gen/modules.S: $(MODULES) Makefile
	@mkdir -p $(@D); sh spec/lists.sh modules $(MODULES) > $@

# ---- objects --------------------------------------------------------------------------------------------
define variant
$B/kernel/$1/%.o: runtime/%.c $B/gen/oplist.h
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $$(KFLAGS) $($1) -DGRI_VARIANT=$1 $(if $(filter generic_f32,$1),,-DGRI_NO_DESCRIPTOR) -MMD -MP -c $$< -o $$@
endef
$(foreach v,$(VARIANTS),$(eval $(call variant,$v)))
# Random numbers, and numbers in steps, are the same bits on every CPU.
$B/kernel/%/ops/uniform.o $B/kernel/%/ops/normal.o $B/kernel/%/ops/trunc_normal.o $B/kernel/%/ops/arange.o: \
    KFLAGS += -ffp-contract=off
# Their loops are over runs of any length, which -O2 alone leaves scalar: 0.08 ns an element instead of 0.29.
$B/core/gather.o $B/core/index.o: CFLAGS += -fvect-cost-model=dynamic
# Margins of a few zeros, at many places, are no calls of memset: 1 % of a residual network's step.
$B/kernel/%/ops/conv2d.o $B/kernel/%/ops/conv2d_weight_grad.o: KFLAGS += -fno-tree-loop-distribute-patterns
$B/core/blas.o: CFLAGS += -isystem $(BLISINC)
$B/core/%.o: runtime/%.c $B/gen/oplist.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c $< -o $@
$B/lua/%.o: lua/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -I$(LUAINC) -MMD -MP -c $< -o $@
$B/gen/%.o: $B/gen/%.c
	$(CC) $(CFLAGS) -c $< -o $@
$B/gen/modules.o: $B/gen/modules.S
	$(CC) -c $< -o $@
-include $(KOBJ:.o=.d) $(COBJ:.o=.d) $(BOBJ:.o=.d)

# ---- artefacts ------------------------------------------------------------------------------------------
$B/libcore.a: $(COBJ) $(KOBJ)
	@rm -f $@; ar rcs $@ $^
$B/libgradrun.a: $(COBJ) $(KOBJ) $(BOBJ)
	@rm -f $@; ar rcs $@ $^
$B/libgradrun.so: $(COBJ) $(KOBJ) $(BOBJ)
	$(CC) -shared -pthread $(SAN) -Wl,-soname,libgradrun.so.0 -o $@ $^ $(LIBS) $(LUALIB)
$B/lua/gradrun/core.so: $(COBJ) $(KOBJ) $(BOBJ)
	@mkdir -p $(@D)
	$(CC) -shared -pthread $(SAN) -o $@ $^ $(LIBS)
$B/gradrun: $B/lua/main.o $(COBJ) $(KOBJ) $(BOBJ)
	$(CC) -pthread $(SAN) -Wl,-E -o $@ $^ $(LIBS) $(LUALIB)
# The example host is compiled as a stranger would: against the public header and the shared library only.
$B/libgradrun.so.0: $B/libgradrun.so
	ln -sf libgradrun.so $@
$B/embed_host: scripts/embed/host.c runtime/gradrun.h $B/libgradrun.so.0
	$(CC) -std=c99 -pedantic $(WARN) $(OPT) $(SAN) -Iruntime -o $@ $< -L$B -Wl,-rpath,'$$ORIGIN' -lgradrun -lm

# What such a host may rely on; run by spec/embed_spec.lua.
$B/runtime_test: spec/embed/runtime_test.c runtime/gradrun.h $B/libgradrun.so.0
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) $(OPT) $(SAN) -pthread -Iruntime -I$(LUAINC) -o $@ $< \
	    -L$B -Wl,-rpath,'$$ORIGIN' -lgradrun $(LUALIB) -lcmocka

# ---- proof ----------------------------------------------------------------------------------------------
CTESTS := $(filter-out $B/c/fault_test,$(patsubst spec/c/%.c,$B/c/%,$(wildcard spec/c/*_test.c)))
SPECS  := $(wildcard spec/*_spec.lua)
$B/c/%_test: spec/c/%_test.c $B/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ispec/c -MMD -MP -MF $@.d -o $@ $< $B/libcore.a $(LIBS) -lcmocka
$B/c/fault_test: spec/c/fault_test.c $B/libgradrun.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -I$(LUAINC) -MMD -MP -MF $@.d -o $@ $< $B/libgradrun.a $(LIBS) $(LUALIB) -lcmocka
-include $(wildcard $B/c/*.d)
# Each allocation failing in turn: on a core without free lists, so that each is one of the system's.
$B/plain/c/fault_test: FORCE
	@$(MAKE) -s B=$B/plain OPT=-O1 SAN="$(SAN) -DGRI_POOLED=0" $@

test: deps ## install what is missing, build, and run every spec; the last line counts
	@$(MAKE) -s -j$$(nproc) specs
specs: all $B/libcore.a $(CTESTS) $B/runtime_test $B/plain/c/fault_test
	@GRADRUN_BUILD=$B SAN="$(SAN)" sh spec/run.sh $(SPECS) $(CTESTS) $B/plain/c/fault_test spec/layers.sh

layers: $B/libcore.a ## who includes whom, and what a library must not do
	@GRADRUN_BUILD=$B SAN="$(SAN)" spec/layers.sh

FUZZERS := $(patsubst spec/fuzz/%.c,$B/fuzz/%,$(wildcard spec/fuzz/*_fuzz.c))
FUZZ_SECONDS ?= 20
$B/fuzz/%_fuzz: spec/fuzz/%_fuzz.c spec/fuzz/fuzz.h $B/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< $B/libcore.a $(LIBS)
fuzz: $(FUZZERS)
	@for f in $^; do echo "$$f, $(FUZZ_SECONDS) s"; $$f $(FUZZ_SECONDS) || exit 1; done
RACES = parallel_test blas_test contexts_test
races: $(RACES:%=$B/c/%)
	@GRADRUN_BUILD=$B sh spec/run.sh $^

check-all: test ## everything again under sanitizers, 100 kills, each reader fuzzed for a minute, races: twenty minutes
	@LIMIT=1500 KILLS=100 GRADRUN_BUILD=$B sh spec/run.sh spec/kill_spec.lua
	@LIMIT=1500 CALLS=200000 FAULTS=all FUZZ_SECONDS=60 ASAN_OPTIONS=allocator_may_return_null=1 \
	    $(MAKE) -s B=$B/asan OPT="-O1 -g" SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" test fuzz
	@LIMIT=1500 $(MAKE) -s B=$B/tsan OPT="-O1 -g" SAN="-fsanitize=thread" races

PYTHON ?= python3
bench: $B/gradrun ## whole training steps against PyTorch and JAX where PYTHON has them; wants an idle machine
	$B/gradrun scripts/bench/compare.lua --python $(PYTHON) $(ARGS)

# ---- what is needed, and where it goes ------------------------------------------------------------------
deps: ## install the Debian packages that are missing (PACKAGES= to take care of them yourself)
	@have=" $$(dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | \
	    sed -n 's/ installed$$//p' | tr '\n' ' ')"; missing=; \
	for p in $(PACKAGES); do case "$$have" in *" $$p "*) ;; *) missing="$$missing $$p" ;; esac; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then root=; else root=sudo; fi; \
	if ! command -v apt-get >/dev/null || ! command -v $${root:-sh} >/dev/null; then \
	    echo "gradrun needs these Debian packages, or what they hold:$$missing" >&2; exit 1; fi; \
	install="$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends$$missing"; \
	echo "installing:$$missing"; $$install || { $$root apt-get update -q && $$install; }

VERSION = $(shell sed -n 's/^\#define GR_VERSION "\(.*\)"/\1/p' runtime/gradrun.h)
$B/gradrun.pc: runtime/gradrun.h Makefile FORCE
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: gradrun' 'Version: $(VERSION)' \
	    'Description: neural-network training runtime, steered by Lua' \
	    'Requires.private: lua5.4 jansson minizip zlib' 'Libs: -L$${prefix}/lib -lgradrun' \
	    'Libs.private: -L$(BLISDIR) -lblis -lm -pthread' 'Cflags: -I$${prefix}/include' > $@

DEST = $(DESTDIR)$(PREFIX)
install: all $B/gradrun.pc ## install below PREFIX (and DESTDIR)
	install -d $(addprefix $(DEST)/,bin include lib/pkgconfig lib/lua/5.4/gradrun share/lua/5.4/gradrun)
	install $B/gradrun $(DEST)/bin/gradrun
	install -m 644 runtime/gradrun.h $(DEST)/include/gradrun.h
	install -m 644 $B/libgradrun.a $(DEST)/lib/libgradrun.a
	install $B/libgradrun.so $(DEST)/lib/libgradrun.so.0
	ln -sf libgradrun.so.0 $(DEST)/lib/libgradrun.so
	install -m 644 $B/gradrun.pc $(DEST)/lib/pkgconfig/gradrun.pc
	install -m 644 $(MODULES) $(DEST)/share/lua/5.4/gradrun/
	install $B/lua/gradrun/core.so $(DEST)/lib/lua/5.4/gradrun/core.so

# Stock lua5.4 holds Lua itself: a module that linked liblua would map a second copy.
.PHONY: link-check FORCE
FORCE:
layers: link-check
link-check: $B/lua/gradrun/core.so
	@if readelf -d $< | grep 'NEEDED.*liblua'; then echo "$< links liblua" >&2; exit 1; fi
