//! Genomic files generated from a seed: the same bytes on every machine, without external tools.
//!
//! Reads and qualities are random enough to compress badly, so a file of 200,000 reads has about
//! 20 MB and its index points to real offsets in it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use noodles::bam;
use noodles::bgzf;
use noodles::core::Position;
use noodles::sam::alignment::io::Write as _;
use noodles::sam::alignment::record::cigar::{Op, op::Kind};
use noodles::sam::alignment::record::{Flags, MappingQuality};
use noodles::sam::alignment::{RecordBuf, record_buf::QualityScores, record_buf::Sequence};
use noodles::sam::header::record::value::Map;
use noodles::sam::header::record::value::map::header::{sort_order::COORDINATE, tag::SORT_ORDER};
use noodles::sam::header::record::value::map::{Header as HeaderLine, ReferenceSequence};
use noodles::{sam, tabix, vcf};

/// Names and lengths in bases.
pub(crate) const CHROMOSOMES: [(&str, usize); 4] =
    [("chr1", 12_000_000), ("chr2", 9_000_000), ("chr3", 6_000_000), ("chrX", 3_000_000)];

/// Bases of one read.
const READ_BASES: usize = 150;

/// Writes a coordinate-sorted BAM with about this many reads to `path`, and its index to
/// `path.bai`. Returns the index's path.
///
/// # Errors
/// Those of writing the two files.
pub(crate) fn write_bam(path: &Path, reads: usize) -> io::Result<PathBuf> {
    let header = bam_header()?;
    let mut writer = bam::io::Writer::new(BufWriter::new(File::create(path)?));
    writer.write_header(&header)?;
    let mut dice = Dice(0x5eed_0bad_cafe_f00d);
    let genome: usize = CHROMOSOMES.iter().map(|(_, length)| length).sum();
    let most_gap = 2 * genome / reads.max(1);
    for (id, (_, length)) in CHROMOSOMES.iter().enumerate() {
        let mut start = 1 + dice.below(most_gap.max(1));
        let mut number = 0;
        while start + READ_BASES < *length {
            let record = read(&mut dice, id, number, start)?;
            writer.write_alignment_record(&header, &record)?;
            start += dice.below(most_gap + 1);
            number += 1;
        }
    }
    writer.try_finish()?;
    writer.into_inner().into_inner().flush()?;
    let index_path = with_suffix(path, ".bai");
    bam::bai::fs::write(&index_path, &bam::fs::index(path)?)?;
    Ok(index_path)
}

/// Writes a bgzipped VCF with this many variants per chromosome to `path`, and its index to
/// `path.tbi`. Returns the index's path.
///
/// # Errors
/// Those of writing the two files.
pub(crate) fn write_vcf(path: &Path, variants: usize) -> io::Result<PathBuf> {
    let mut writer = bgzf::io::Writer::new(BufWriter::new(File::create(path)?));
    writeln!(writer, "##fileformat=VCFv4.3")?;
    writeln!(writer, "##FILTER=<ID=PASS,Description=\"All filters passed\">")?;
    writeln!(writer, "##INFO=<ID=DP,Number=1,Type=Integer,Description=\"Read depth\">")?;
    for (name, length) in CHROMOSOMES {
        writeln!(writer, "##contig=<ID={name},length={length}>")?;
    }
    writeln!(writer, "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")?;
    let mut dice = Dice(0x0dd5_0fa1_1e1e_5eed);
    for (name, length) in CHROMOSOMES {
        let gap = length / (variants + 1);
        for number in 0..variants {
            let position = 1 + number * gap + dice.below(gap);
            let base = dice.below(4);
            let (reference, other) = (b"ACGT"[base] as char, b"CGTA"[base] as char);
            let (quality, depth) = (20 + dice.below(80), 5 + dice.below(60));
            writeln!(
                writer,
                "{name}\t{position}\trs{number}\t{reference}\t{other}\t{quality}\tPASS\tDP={depth}"
            )?;
        }
    }
    writer.finish()?.flush()?;
    let index_path = with_suffix(path, ".tbi");
    tabix::fs::write(&index_path, &vcf::fs::index(path)?)?;
    Ok(index_path)
}

fn bam_header() -> io::Result<sam::Header> {
    let line = Map::<HeaderLine>::builder().insert(SORT_ORDER, COORDINATE).build();
    let mut header = sam::Header::builder()
        .set_header(line.map_err(|error| io::Error::other(error.to_string()))?);
    for (name, length) in CHROMOSOMES {
        let length = NonZero::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        header = header.add_reference_sequence(name, Map::<ReferenceSequence>::new(length));
    }
    Ok(header.build())
}

/// One mapped read; about every tenth has a small deletion.
fn read(dice: &mut Dice, chromosome: usize, number: usize, start: usize) -> io::Result<RecordBuf> {
    let bases = dice.pick_each(b"ACGT");
    // Like real instruments: few different qualities, most of them high.
    let qualities = dice.pick_each(&[37, 37, 37, 37, 37, 25, 25, 11]);
    let cigar = if dice.below(10) == 0 {
        vec![Op::new(Kind::Match, 70), Op::new(Kind::Deletion, 3), Op::new(Kind::Match, 80)]
    } else {
        vec![Op::new(Kind::Match, READ_BASES)]
    };
    let flags = if dice.below(2) == 0 { Flags::empty() } else { Flags::REVERSE_COMPLEMENTED };
    let start = Position::new(start).ok_or(io::ErrorKind::InvalidInput)?;
    let quality = MappingQuality::new(20 + dice.below(41) as u8);
    Ok(RecordBuf::builder()
        .set_name(format!("FLOWCELL:1:{chromosome}:{number}"))
        .set_flags(flags)
        .set_reference_sequence_id(chromosome)
        .set_alignment_start(start)
        .set_mapping_quality(quality.ok_or(io::ErrorKind::InvalidInput)?)
        .set_cigar(cigar.into())
        .set_sequence(Sequence::from(bases))
        .set_quality_scores(QualityScores::from(qualities))
        .build())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A xorshift generator: random enough, and the same numbers on every machine.
struct Dice(u64);

impl Dice {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.throw() >> 16) as usize % bound
    }

    /// One of these values, at most eight, for each base of a read. One random number yields
    /// several, since a file needs 60 million of them.
    fn pick_each<const N: usize>(&mut self, values: &[u8; N]) -> Vec<u8> {
        let mut picked = Vec::with_capacity(READ_BASES + 16);
        while picked.len() < READ_BASES {
            let throw = self.throw() >> 8;
            picked.extend((0..16).map(|at| values[(throw >> (3 * at)) as usize % N]));
        }
        picked.truncate(READ_BASES);
        picked
    }

    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
