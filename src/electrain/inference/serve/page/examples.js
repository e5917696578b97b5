// Texts to try, in the two languages of the page. A model knows one of them best, so both are offered.
import { currentLanguage } from "./dom.js";

const EXAMPLES = {
  detect: {
    en: ["The chef cooked a delicious banana for the wedding, and all the guests thanked the roof.", "She opened the window and looked out at the ocean in the kettle."],
    zh: ["他打开窗户，看见月亮在天上唱歌，街上的人都带着香蕉去上班。", "这家酒店的房间很干净，服务员也很数学。"],
  },
  fill: {
    en: ["The old man walked to the ____ and sat down.", "She was ____ because the train was ____."],
    zh: ["他每天早上都去公园____步。", "中国的首都是____京。"],
  },
  classify: {
    en: ["A warm, funny film that stays with you.", "Two hours of my life that nobody will give back."],
    zh: ["房间很干净，服务也很热情，下次还会再来。", "电池用了半天就没电了，非常失望。"],
  },
  pair: {
    en: [["A man is playing a guitar.", "Someone plays an instrument."], ["Children run across the field.", "A cat sleeps on the sofa."]],
    zh: [["一个男人在弹吉他。", "有人在演奏乐器。"], ["孩子们在操场上跑步。", "一只猫在沙发上睡觉。"]],
  },
  regress: {
    en: ["A man is playing a guitar.", "The weather is lovely today."],
    zh: ["一个男人在弹吉他。", "今天天气真好。"],
  },
  tag: {
    en: ["Ada Lovelace wrote the first program in London in 1843.", "The quick brown fox jumps over the lazy dog."],
    zh: ["李明昨天从北京飞往上海，参加联合国教科文组织的会议。", "王小红在广州的中山大学教书。"],
  },
  answer: {
    en: [["Who built the lighthouse?", "The lighthouse at the harbour was built in 1861 by the engineer Robert Stevenson. It is 34 metres high, and its lamp can be seen from 30 kilometres away."], ["How high is the lighthouse?", "The lighthouse at the harbour was built in 1861 by the engineer Robert Stevenson. It is 34 metres high, and its lamp can be seen from 30 kilometres away."]],
    zh: [["灯塔是谁设计的？", "港口的灯塔建于1861年，由工程师陈志远设计。它高34米，灯光在30公里外也能看见。"], ["灯塔有多高？", "港口的灯塔建于1861年，由工程师陈志远设计。它高34米，灯光在30公里外也能看见。"]],
  },
  summarize: {
    en: ["Dear all, the meeting on Thursday has to move because the large room is being painted. We will meet on Friday at ten in the library instead. Please send me your figures for the quarter by Wednesday evening, so that I can put them into one table before we talk."],
    zh: ["本文研究了小型语言模型在有限计算资源下的预训练方法。实验表明，替换词检测任务比掩码语言模型更有效地利用每一个词，在相同的训练时间内取得了更好的下游任务结果。"],
  },
  translate: {
    en: ["I am reading a book.", "Where is the station?"],
    zh: ["我在看书。", "车站在哪里？"],
  },
  generate: {
    en: ["Once upon a time there was", "The old house at the end of the road"],
    zh: ["从前有一个", "今天早上，"],
  },
  embed: {
    en: ["The cat sleeps on the sofa.\nA kitten is lying on the couch.\nThe stock market fell sharply.\nShares lost much of their value.\nWe had soup for dinner."],
    zh: ["猫在沙发上睡觉。\n一只小猫躺在长椅上。\n股市今天大幅下跌。\n股票价格跌了很多。\n我们晚饭喝了汤。"],
  },
};

/** The examples for a panel: those in the language of the page, and one in the other. */
export function examplesOf(name) {
  const { en, zh } = EXAMPLES[name];
  return currentLanguage() === "zh" ? [...zh, en[0]] : [...en, zh[0]];
}
