//! Compiles `proto/` in pure Rust: no protoc on the machine.
//!
//! The encoded descriptor set keeps custom options: with comments it serves reflection, the OpenAPI document and
//! `redkeep descriptors`, without them the descriptor pool. The decoded set feeds the code generator, which needs no options.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Files that nothing imports but that answers may hold, wrapped in `google.protobuf.Any`.
const BESIDES: [&str; 1] = ["google/protobuf/empty.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort();
    files.extend(BESIDES.map(PathBuf::from));

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("redkeep.binpb"), compiler.encode_file_descriptor_set())?;
    // Comments are most of the memory that descriptors take, and only documents show them.
    let mut bare = protox::Compiler::new([root])?;
    bare.include_imports(true).include_source_info(false).open_files(&files)?;
    fs::write(out.join("pool.binpb"), bare.encode_file_descriptor_set())?;

    let mut config = prost_build::Config::new();
    // Ordered maps make the encoding of a request canonical; names let one codec find the rules of every request.
    config.btree_map(["."]).enable_type_names().include_file("pb.rs");
    // What holds a secret is written by hand where it can be printed.
    config.skip_debug([".redkeep.v1.Credentials"]);
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .codec_path("crate::api::codec::Codec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "proto")
            && let Ok(relative) = path.strip_prefix(root)
        {
            files.push(relative.to_owned());
        }
    }
    Ok(())
}
